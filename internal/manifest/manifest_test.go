package manifest

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files anew")

// example is the manifest of testdata/manifest.json and of docs/formats.md.
func example(t testing.TB) *Manifest {
	t.Helper()
	payload, err := HashPayload("system.squashfs", bytes.NewReader(make([]byte, ChunkSize+4096)))
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) File {
		f, err := HashFile(name, strings.NewReader("the bytes of "+name))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	return &Manifest{
		V:        1,
		Label:    "pocket-1",
		Arch:     "x86_64-linux",
		System:   "/nix/store/z5k8yz3aq3l2i7v4i3p4v8f0d2p1wzsx-xnodeos-pocket-1",
		Closure:  "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		Handover: HandoverScript,
		Time:     1,
		Cmdline:  "loglevel=4 console=tty0 console=ttyS0,115200 panic=10",
		Kernel:   file("vmlinuz"),
		Initrd:   file("initrd"),
		Payload:  payload,
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "manifest.json")
	got, err := example(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("Encode (-golden +got):\n%s", diff)
	}
	parsed, err := Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parsed.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, want) {
		t.Error("Parse and Encode do not give the golden file back")
	}
	digest, err := parsed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want := DigestOf(got); digest != want {
		t.Errorf("Digest() = %q; want %q", digest, want)
	}
}
