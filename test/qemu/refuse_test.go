package qemu

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/vm"
)

// TestBootTampered changes one byte of the ISO: the first stage must refuse it
// and say where it is.
func TestBootTampered(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	iso, err := os.ReadFile(img.iso)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := os.ReadFile(filepath.Join(img.netboot, "system.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := os.ReadFile(filepath.Join(img.netboot, manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	const chunk = 3
	for _, tt := range []struct {
		name     string
		firmware vm.Firmware
		at       int
		want     string
	}{
		{"payload", vm.BIOS, offsetIn(t, iso, payload) + chunk*manifest.ChunkSize + 1234,
			`xnode-init: error: .*"system\.squashfs" is damaged: chunk 3 `},
		{"manifest", vm.BIOS, offsetIn(t, iso, encoded) + bytes.Index(encoded, []byte(`"label": "`)) + 10,
			`xnode-init: error: .*manifest`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Side by side: after some seconds each only waits for another medium,
			// for a minute.
			t.Parallel()
			changed := bytes.Clone(iso)
			changed[tt.at] ^= 1
			name := filepath.Join(t.TempDir(), "changed.iso")
			if err := os.WriteFile(name, changed, 0o644); err != nil {
				t.Fatal(err)
			}
			s := scenario{firmware: tt.firmware, as: vm.CD, iso: name}
			_, line := s.boot(t, img, stageFailed, ready, kernelPanic)
			if !regexp.MustCompile(tt.want).MatchString(line.Text) {
				t.Errorf("console: %q; want /%s/", line.Text, tt.want)
			}
		})
	}
}

// offsetIn finds a file in an image: it lies there in one piece.
func offsetIn(t *testing.T, image, file []byte) int {
	t.Helper()
	at := bytes.Index(image, file)
	if at < 0 {
		t.Fatal("the file is not in the image")
	}
	return at
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
