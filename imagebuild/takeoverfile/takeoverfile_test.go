package takeoverfile_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/internal/disk"
)

// program is the smallest ELF that is accepted: a header without segments.
func program(t testing.TB, size int) []byte {
	t.Helper()
	elf := make([]byte, size)
	copy(elf, "\x7fELF\x02\x01\x01")
	elf[16], elf[18], elf[20] = 2, 62, 1 // executable, x86-64, version 1
	elf[52], elf[54], elf[58] = 64, 56, 64
	elf[size-1] = 1
	return elf
}

func spec(t testing.TB, payload bool) takeoverfile.Spec {
	s := takeoverfile.Spec{
		Program: program(t, 5000), Kernel: []byte("kernel"), Initrd: bytes.Repeat([]byte("initrd"), 1000),
		Manifest: []byte("{}\n"), Cmdline: "console=ttyS0 xnode.manifest=sha256:00",
	}
	if payload {
		f := disk.Bytes("system.squashfs", bytes.Repeat([]byte{7}, 10001))
		s.Payload = &f
	}
	return s
}

func write(t testing.TB, s takeoverfile.Spec) []byte {
	t.Helper()
	image, err := takeoverfile.Layout(s)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := image.Write(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != image.Size {
		t.Fatalf("written %d bytes; planned %d", out.Len(), image.Size)
	}
	return out.Bytes()
}

func open(data []byte) (*takeoverfile.File, error) {
	return takeoverfile.Open(bytes.NewReader(data), int64(len(data)))
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, payload := range []bool{false, true} {
		s := spec(t, payload)
		data := write(t, s)
		if again := write(t, s); !bytes.Equal(data, again) {
			t.Fatal("the same parts gave other bytes")
		}
		f, err := open(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Verify(t.Context()); err != nil {
			t.Errorf("Verify = %v", err)
		}
		for _, part := range []struct {
			part takeoverfile.Part
			want []byte
		}{{f.Program, s.Program}, {f.Kernel, s.Kernel}, {f.Initrd, s.Initrd}, {f.Manifest, s.Manifest}, {f.Cmdline, []byte(s.Cmdline + "\n")}} {
			got, err := f.Bytes(part.part)
			if err != nil || !bytes.Equal(got, part.want) {
				t.Errorf("part %s: %d bytes, %v; want %d bytes", part.part.Name, len(got), err, len(part.want))
			}
		}
		if line, err := f.Line(); err != nil || line != s.Cmdline {
			t.Errorf("Line() = %q, %v; want %q", line, err, s.Cmdline)
		}
		if (f.Payload != nil) != payload {
			t.Fatalf("payload is %v; want one: %t", f.Payload, payload)
		}
		if payload {
			got, err := io.ReadAll(f.Section(*f.Payload))
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{7}, 10001)) {
				t.Errorf("payload: %d bytes, %v", len(got), err)
			}
		}
	}
}

// TestGolden holds the places and the bytes between the parts: a change makes
// old programs unable to read new files.
func TestGolden(t *testing.T) {
	t.Parallel()
	image, err := takeoverfile.Layout(spec(t, true))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range image.Segments {
		fmt.Fprintf(&got, "%6d %6d %s", s.Offset, s.Size, s.Name)
		if s.Generated && s.Size < 1000 {
			r, err := s.Open()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, " %q", data)
		}
		got.WriteByte('\n')
	}
	fmt.Fprintf(&got, "%6d end, sha256 %x\n", image.Size, sha256.Sum256(write(t, spec(t, true))))
	name := filepath.Join("testdata", "layout.txt")
	if os.Getenv("XNODE_UPDATE") == "1" {
		if err := os.WriteFile(name, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("layout (XNODE_UPDATE=1 writes it anew):\n%s", diff)
	}
}

func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	data := write(t, spec(t, true))
	f, err := open(data)
	if err != nil {
		t.Fatal(err)
	}
	payload := *f.Payload
	for at := range data {
		if int64(at) >= payload.Offset && int64(at) < payload.Offset+payload.Size {
			continue
		}
		data[at] ^= 0x20
		f, err := open(data)
		if err == nil {
			err = f.Verify(t.Context())
		}
		data[at] ^= 0x20
		if err == nil {
			t.Fatalf("a change of byte %d went unseen", at)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	data := write(t, spec(t, true))
	var damaged *takeoverfile.DamagedError
	if _, err := open(data[:5000]); !errors.Is(err, takeoverfile.ErrNoArchive) {
		t.Errorf("bare program: %v; want ErrNoArchive", err)
	}
	if _, err := open(nil); !errors.Is(err, takeoverfile.ErrNoArchive) {
		t.Errorf("empty file: %v; want ErrNoArchive", err)
	}
	if _, err := open(data[4096:]); !errors.As(err, &damaged) {
		t.Errorf("without its head: %v; want *DamagedError", err)
	}
	for cut := len(data) - 1; cut > len(data)-200; cut-- {
		if _, err := open(append(bytes.Clone(data[:cut-64]), data[len(data)-64:]...)); !errors.As(err, &damaged) {
			t.Errorf("%d bytes less: %v; want *DamagedError", len(data)-cut, err)
		}
	}
}

func TestLayoutRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*takeoverfile.Spec)
		want   string
	}{
		{"no program", func(s *takeoverfile.Spec) { s.Program = []byte("#!/bin/sh\n") }, "program"},
		{"other machine", func(s *takeoverfile.Spec) { s.Program[18] = 183 }, "want a 64-bit x86-64 program"},
		{"takeover file", func(s *takeoverfile.Spec) { s.Program = write(t, spec(t, false)) }, "takeover file itself"},
		{"no kernel", func(s *takeoverfile.Spec) { s.Kernel = nil }, "vmlinuz has 0 bytes"},
		{"no initrd", func(s *takeoverfile.Spec) { s.Initrd = nil }, "initrd has 0 bytes"},
		{"no manifest", func(s *takeoverfile.Spec) { s.Manifest = nil }, "manifest.json has 0 bytes"},
		{"two lines", func(s *takeoverfile.Spec) { s.Cmdline = "a\nb" }, "line break"},
		{"huge payload", func(s *takeoverfile.Spec) { s.Payload = &disk.File{Size: 5 << 30} }, "--payload-url"},
	} {
		s := spec(t, false)
		tc.change(&s)
		if _, err := takeoverfile.Layout(s); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", tc.name, err, tc.want)
		}
	}
}

// FuzzOpen: whatever is accepted is what Layout would have written.
func FuzzOpen(f *testing.F) {
	f.Add(write(f, spec(f, false)))
	f.Add(write(f, spec(f, true)))
	f.Add(program(f, 200))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := open(data)
		if err != nil || file.Verify(t.Context()) != nil {
			return
		}
		line, err := file.Line()
		if err != nil {
			return
		}
		s := takeoverfile.Spec{Cmdline: line}
		for part, into := range map[takeoverfile.Part]*[]byte{
			file.Program: &s.Program, file.Kernel: &s.Kernel, file.Initrd: &s.Initrd, file.Manifest: &s.Manifest,
		} {
			if *into, err = file.Bytes(part); err != nil {
				t.Fatal(err)
			}
		}
		if file.Payload != nil {
			raw, err := file.Bytes(*file.Payload)
			if err != nil {
				t.Fatal(err)
			}
			payload := disk.Bytes("system.squashfs", raw)
			s.Payload = &payload
		}
		image, err := takeoverfile.Layout(s)
		if err != nil {
			return // a program that is none
		}
		var out bytes.Buffer
		if err := image.Write(t.Context(), &out, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), data) {
			t.Error("Layout gives other bytes for the parts of this file")
		}
	})
}
