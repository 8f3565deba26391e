package qemu

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"xnodeos.org/internal/verity"
	"xnodeos.org/internal/vm"
)

// TestArtifactVerityDamaged changes a byte of the payload on an ISO, in a file
// that no boot needs. The node comes up; reading that file is an I/O error that
// names it, and not one wrong byte is given out.
func TestArtifactVerityDamaged(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	payload, err := os.ReadFile(filepath.Join(img.netboot, "system.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	offset, files := findDamage(t, payload, img.manifest.Payload.Verity.DataBlocks*verity.BlockSize)
	name := damagedISO(t, img, payload, offset)
	n, line := scenario{as: vm.CD, iso: name}.boot(t, img, ready, stageFailed, kernelPanic)
	n.checkUp(t, line, extra{})
	for file, good := range files {
		out := n.shell(t, "sha256sum "+file+" 2>&1 >/dev/null; echo; cat "+file+" 2>/dev/null >/tmp/bytes; stat -c %s /tmp/bytes; "+
			"sha256sum </tmp/bytes; dmesg | grep 'device-mapper: verity: .* is corrupted' | tail -1")
		said, rest, _ := strings.Cut(out, "\n\n")
		if !strings.Contains(said, file) || !strings.Contains(said, "Input/output error") {
			t.Errorf("reading %s says %q; want an input/output error that names it", file, said)
		}
		count, rest, _ := strings.Cut(rest, "\n")
		sum, log, _ := strings.Cut(rest, "\n")
		got, err := strconv.Atoi(strings.TrimSpace(count))
		if err != nil || got >= len(good) {
			t.Fatalf("reading %s gave %q bytes of %d", file, count, len(good))
		}
		if want := fmt.Sprintf("%x", sha256.Sum256(good[:got])); !strings.HasPrefix(sum, want) {
			t.Errorf("the first %d bytes of %s are wrong: %s", got, file, sum)
		}
		if want := fmt.Sprintf("data block %d is corrupted", offset/verity.BlockSize); !strings.Contains(log, want) {
			t.Errorf("the kernel says %q; want %q", log, want)
		}
		t.Logf("byte %d: %s after %d of %d bytes; %s", offset, said, got, len(good), strings.TrimSpace(log))
	}
}

// TestArtifactVerityUnmountable damages the very first block, without which there
// is nothing to mount: all of the payload is read then, so that the damage is
// named as ever.
func TestArtifactVerityUnmountable(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	payload, err := os.ReadFile(filepath.Join(img.netboot, "system.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	n, line := scenario{as: vm.CD, iso: damagedISO(t, img, payload, 40)}.boot(t, img, stageFailed, ready, kernelPanic)
	if want := `"system.squashfs" is damaged: chunk 0 `; !strings.Contains(line.Text, want) {
		t.Errorf("console: %q; want %q", line.Text, want)
	}
	n.says(t, `cannot be used block by block .*all of it is checked first instead`)
}

// damagedISO copies the ISO with one byte of the payload changed.
func damagedISO(t *testing.T, img *image, payload []byte, offset int64) string {
	t.Helper()
	iso, err := os.ReadFile(img.iso)
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Index(iso, payload[:1<<20])
	if begin < 0 {
		t.Fatal("the payload is not in the ISO")
	}
	iso[int64(begin)+offset] ^= 1
	name := filepath.Join(t.TempDir(), "damaged.iso")
	if err := os.WriteFile(name, iso, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// findDamage looks for a byte of the payload that lies in kernel modules only,
// and returns these files with their right content.
func findDamage(t *testing.T, payload []byte, size int64) (offset int64, files map[string][]byte) {
	t.Helper()
	work := t.TempDir()
	good := unpack(t, work, "good", payload)
	for part := int64(1); part < 24; part++ {
		offset = size * part / 24
		payload[offset] ^= 1
		bad := unpack(t, work, "bad", payload)
		payload[offset] ^= 1
		files = map[string][]byte{}
		needed := false
		for name, content := range good {
			if !bytes.Equal(content, bad[name]) {
				files["/nix/"+name] = content
				needed = needed || !strings.Contains(name, "/kernel/drivers/") && !strings.Contains(name, "/kernel/sound/")
			}
		}
		if len(files) > 0 && len(files) < 8 && !needed {
			return offset, files
		}
	}
	t.Fatal("found no byte that only kernel modules need")
	return 0, nil
}

// unpack returns the content of all files of a squashfs that may be damaged.
func unpack(t *testing.T, work, name string, payload []byte) map[string][]byte {
	t.Helper()
	image, dir := filepath.Join(work, name+".squashfs"), filepath.Join(work, name)
	if err := os.WriteFile(image, payload, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	// It ends with an error where it finds damage; what is missing then tells.
	cmd := exec.CommandContext(t.Context(), "unsquashfs", "-no-progress", "-ignore-errors", "-d", dir, image)
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatalf("unsquashfs: %v; run scripts/setup\n%s", err, out)
	}
	files := map[string][]byte{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[rel], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
