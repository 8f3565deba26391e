package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/vm"
)

// badChunk is the chunk in which a byte of the payload is changed.
const badChunk = 3

// TestArtifactTampered changes one byte of what is booted, on every path by
// which a payload comes from a medium or with the kernel: the first stage must
// refuse it and say where it is. (Over HTTP: TestArtifactHTTPTampered; by
// takeover: TestTakeoverRefused.)
func TestArtifactTampered(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	disk := tamperedDisk(t, img)
	damaged := `.*: verify payload: "system\.squashfs" is damaged: chunk 3 `
	for _, tt := range []struct {
		name string
		want string
		scenario
	}{
		// One waits to the end, a minute after the other media could have come; of
		// the others it is enough that they say what they do not take.
		{"iso", `xnode-init: error: find payload: .*cd /dev/sr0` + damaged, scenario{as: vm.CD, iso: tampered(t, img.iso, payloadByte(t, img))}},
		{"iso-manifest", `xnode-init: skipped cd /dev/sr0: .*the command line names ` + img.digest,
			scenario{as: vm.CD, iso: tampered(t, img.iso, manifestByte(t, img))}},
		{"raw", `xnode-init: skipped disk /dev/vda3` + damaged, scenario{as: vm.Disk, iso: disk}},
		{"uki", `xnode-init: skipped disk /dev/vda3` + damaged, scenario{firmware: vm.UEFI, as: vm.Disk, iso: disk}},
		{"netboot-embedded", `xnode-init: skipped the initrd` + damaged, scenario{append: verifyWhole, change: func(m *vm.Machine) {
			m.Initrd = tampered(t, m.Initrd, payloadByte(t, img))
		}}},
	} {
		tt.memory = 512
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := vm.Regexp(regexp.MustCompile(tt.want))
			tt.boot(t, img, want, ready, kernelPanic)
		})
	}
}

// change is one byte of a file, found by what lies before it.
type change struct {
	begin  []byte // unique in the file
	offset int64  // from there
}

func payloadByte(t *testing.T, img *image) change {
	t.Helper()
	return change{readStart(t, filepath.Join(img.netboot, "system.squashfs"), 4096), badChunk*manifest.ChunkSize + 1234}
}

func manifestByte(t *testing.T, img *image) change {
	t.Helper()
	begin := readStart(t, filepath.Join(img.netboot, manifest.FileName), 256)
	return change{begin, int64(bytes.Index(begin, []byte(`"label": "`)) + 10)}
}

func readStart(t *testing.T, name string, size int) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data[:size]
}

// verifyWhole has the first stage read all of the payload before it is used,
// so that it can say which chunk is damaged.
const verifyWhole = "xnode.verify=whole"

// Words of every artifact's command line, and as many bytes that also ask for
// verifyWhole. The manifest has the words as well, but does not name itself.
var (
	consoleWords = []byte("console=tty0 console=ttyS0,115200 panic=10 xnode.manifest=")
	wholeWords   = []byte("console=ttyS0 " + verifyWhole + "  panic=10 xnode.manifest=")
)

// tampered copies an artifact, asks for verifyWhole in each of its command
// lines, and changes the byte.
func tampered(t *testing.T, from string, c change) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tampered")
	copySparse(t, from, name)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range places(t, f, consoleWords) {
		if _, err := f.WriteAt(wholeWords, at); err != nil {
			t.Fatal(err)
		}
	}
	found := places(t, f, c.begin)
	if len(found) != 1 {
		t.Fatalf("what was to be changed is %d times in %s", len(found), from)
	}
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, found[0]+c.offset); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1
	if _, err := f.WriteAt(one, found[0]+c.offset); err != nil {
		t.Fatal(err)
	}
	return name
}

// tamperedDisk is the disk image with a damaged payload, whose ESP holds the
// unified image: BIOS boots it by GRUB, UEFI by the unified image.
func tamperedDisk(t *testing.T, img *image) string {
	t.Helper()
	uki, err := os.ReadFile(img.uki)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "uki.efi")
	if err := os.WriteFile(program, bytes.ReplaceAll(uki, consoleWords, wholeWords), 0o644); err != nil {
		t.Fatal(err)
	}
	name := tampered(t, img.raw, payloadByte(t, img))
	replaceLoader(t, name, program)
	return name
}

// places finds every occurrence of what in a file, which may be large and
// mostly holes.
func places(t *testing.T, f *os.File, what []byte) (found []int64) {
	t.Helper()
	buf := make([]byte, 4<<20)
	for at := int64(0); ; {
		n, err := f.ReadAt(buf, at)
		for from := 0; ; {
			i := bytes.Index(buf[from:n], what)
			if i < 0 {
				break
			}
			found = append(found, at+int64(from+i))
			from += i + 1
		}
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		at += int64(n - len(what) + 1)
	}
}

// TestBootTooLittleMemory makes sure that a machine that could only thrash is
// told so.
func TestBootTooLittleMemory(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	s := scenario{firmware: vm.BIOS, as: vm.CD, memory: 144}
	_, line := s.boot(t, img, stageFailed, ready, kernelPanic)
	want := regexp.MustCompile(`xnode-init: error: check memory: [0-9]+ MB are free of [0-9]+ MB, [0-9]+ MB are needed; give the machine at least [0-9]+ MB more memory`)
	if !want.MatchString(line.Text) {
		t.Errorf("console: %q; want /%s/", line.Text, want)
	}
}

// TestBootBroken boots the systems that are broken on purpose: what they are
// for is that later tests can tell them from good ones by their state.
func TestBootBroken(t *testing.T) {
	t.Run("unit", func(t *testing.T) {
		img := buildImage(t, recipe{system: "pocket:label=pocket-2,broken=unit"})
		n, line := scenario{}.boot(t, img, ready, stageFailed, kernelPanic)
		facts := n.facts(t, map[string]string{
			"state":  "systemctl is-system-running --wait || true",
			"failed": "systemctl --failed --plain --no-legend",
		})
		if facts["state"] != "degraded" || !regexp.MustCompile(`^pocket-broken\.service .*failed`).MatchString(facts["failed"]) {
			t.Errorf("%s: state %q, failed %q; want degraded by pocket-broken.service", line.Text, facts["state"], facts["failed"])
		}
	})
	t.Run("activation", func(t *testing.T) {
		img := buildImage(t, recipe{system: "pocket:label=pocket-2,broken=activation"})
		said := vm.Regexp(regexp.MustCompile(`activation failed`))
		n, line := scenario{}.boot(t, img, said, stageFailed, kernelPanic, ready)
		ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
		defer cancel()
		if _, _, err := n.ExpectFrom(ctx, line.N, ready); err != nil {
			t.Errorf("a system whose activation fails must still come up: %v", err)
		}
	})
	t.Run("panic", func(t *testing.T) {
		img := buildImage(t, recipe{system: "pocket:label=pocket-2,broken=panic"})
		n, _ := scenario{append: "xnode.test.panic"}.boot(t, img, kernelPanic, stageFailed, ready)
		// panic=10 on the command line of every artifact: it must reboot.
		if exit := n.Wait(); exit.Cause != vm.Reset {
			t.Errorf("after the panic: %v; want that the machine resets itself", exit)
		}
	})
}
