package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
)

var here = Marker{V: 1, Trust: "sha256:aa", SMBIOS: "0f0e", Disk: "state-1"}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()+" "+info.Mode().String()] = string(data)
	}
	return files
}

func TestIdentityIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := OpenIdentity(t.Context(), dir, here)
	if err != nil || !first.Made {
		t.Fatalf("the first boot: %+v, %v", first, err)
	}
	files := tree(t, dir)
	for _, want := range []string{"node-key -rw-------", "node-key.pub -rw-r--r--", "marker.json -rw-r--r--", "marker.json.sig -rw-r--r--"} {
		if _, ok := files[want]; !ok {
			t.Errorf("no file %q", want)
		}
	}
	second, err := OpenIdentity(t.Context(), dir, here)
	if err != nil || second.Made || second.Fingerprint != first.Fingerprint {
		t.Errorf("the second boot: %+v, %v; want %s", second, err, first.Fingerprint)
	}
	if diff := cmp.Diff(files, tree(t, dir)); diff != "" {
		t.Errorf("the second boot changed something (-first +second):\n%s", diff)
	}
	// OpenSSH reads both files.
	if out := testkit.RunTool(t, "ssh-keygen", "-l", "-f", filepath.Join(dir, KeyName)); !strings.Contains(out, first.Fingerprint+" xnode (ED25519)") {
		t.Errorf("ssh-keygen -l: %s; want %s", out, first.Fingerprint)
	}
	if out := testkit.RunTool(t, "ssh-keygen", "-y", "-f", filepath.Join(dir, KeyName)); out != files["node-key.pub -rw-r--r--"] {
		t.Errorf("node-key.pub is not the public half: %s", out)
	}
}

func TestMismatchIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenIdentity(t.Context(), dir, here); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	for part, change := range map[string]func(*Marker){
		`trust in the image is "sha256:aa" there and "" here`:               func(m *Marker) { m.Trust = "" },
		`SMBIOS UUID is "0f0e" there and "ffff" here`:                       func(m *Marker) { m.SMBIOS = "ffff" },
		`serial number of the disk is "state-1" there and "state-2" here`:   func(m *Marker) { m.Disk = "state-2" },
		`"0f0e" there and "ffff" here; serial number of the disk is "state`: func(m *Marker) { m.SMBIOS, m.Disk = "ffff", "x" },
		"begin anew once with xnode.state=new:":                             func(m *Marker) { m.Disk = "" },
	} {
		want := here
		change(&want)
		_, err := OpenIdentity(t.Context(), dir, want)
		var mismatch *MismatchError
		if !errors.As(err, &mismatch) || !strings.Contains(err.Error(), part) {
			t.Errorf("OpenIdentity = %v; want %q", err, part)
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("a foreign state was changed (-before +after):\n%s", diff)
	}
}

// What a power cut leaves of making the files is completed; what is damaged
// later is refused and left alone.
func TestIdentityParts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(dir string) error
		want   string // of the error; "" if the identity must be had
		made   bool
	}{
		"no key":        {func(dir string) error { return os.Remove(filepath.Join(dir, KeyName)) }, "", true},
		"no public key": {func(dir string) error { return os.Remove(filepath.Join(dir, PublicKeyName)) }, "", false},
		"other public key": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, PublicKeyName), []byte("ssh-ed25519 AAAA"), 0o644)
		}, "", false},
		"no marker":    {func(dir string) error { return os.Remove(filepath.Join(dir, MarkerName)) }, "read marker", false},
		"no signature": {func(dir string) error { return os.Remove(filepath.Join(dir, SignatureName)) }, "read marker", false},
		"broken key":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, KeyName), []byte("x"), 0o600) }, "begin anew", false},
		"open key":     {func(dir string) error { return os.Chmod(filepath.Join(dir, KeyName), 0o644) }, "begin anew", false},
		"changed marker": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, MarkerName), []byte(`{"v":1}`), 0o644)
		}, "begin anew", false},
		"marker of another key": {func(dir string) error {
			pair, err := sshsign.GenerateKey("x")
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, KeyName), pair.PrivateFile(), 0o600)
		}, "is signed by", false},
		"link": {func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, MarkerName), filepath.Join(dir, "x")), os.Symlink("x", filepath.Join(dir, MarkerName)))
		}, "not an ordinary file", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if _, err := OpenIdentity(t.Context(), dir, here); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			id, err := OpenIdentity(t.Context(), dir, here)
			switch {
			case tt.want == "" && (err != nil || id.Made != tt.made):
				t.Errorf("OpenIdentity = %+v, %v; want it, made %v", id, err, tt.made)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("OpenIdentity = %+v, %v; want %q", id, err, tt.want)
			}
			if err == nil {
				if again, err := OpenIdentity(t.Context(), dir, here); err != nil || again.Made || again.Fingerprint != id.Fingerprint {
					t.Errorf("the next boot: %+v, %v", again, err)
				}
			}
		})
	}
}

func TestTrustHash(t *testing.T) {
	t.Parallel()
	config := func(files map[string]string) *nodeconfig.Config {
		c := &nodeconfig.Config{Files: map[string][]byte{}}
		for name, text := range files {
			c.Files[name] = []byte(text)
		}
		return c
	}
	a := TrustHash(config(map[string]string{"trust/allowed_signers": "a", "trust/trust.json": "b", "hostname": "x"}))
	if b := TrustHash(config(map[string]string{"trust/trust.json": "b", "trust/allowed_signers": "a", "class": "y"})); a != b || !strings.HasPrefix(a, "sha256:") {
		t.Errorf("the same trust has the hashes %q and %q", a, b)
	}
	if b := TrustHash(config(map[string]string{"trust/allowed_signers": "b", "trust/trust.json": "a"})); a == b {
		t.Error("other trust has the same hash")
	}
	if got := TrustHash(config(map[string]string{"hostname": "x"})) + TrustHash(nil); got != "" {
		t.Errorf("no trust has the hash %q", got)
	}
}

func TestNewKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := NewKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewKey(dir)
	if err != nil || a.Fingerprint == b.Fingerprint || !b.Made {
		t.Errorf("NewKey twice = %+v, %+v, %v; want two keys", a, b, err)
	}
	if files := tree(t, dir); len(files) != 2 {
		t.Errorf("files: %v; want the two of a key", files)
	}
}

// TestFormats holds docs/formats.md to what is written.
func TestFormats(t *testing.T) {
	t.Parallel()
	got, err := Marker{V: 1, Trust: "sha256:7c0b36ddd2a1c4a2a1a6d2e1f0d5f8f6a6a3b4a9d3a0a6c2f1a4d6a7d9c6e1b2",
		SMBIOS: "4c4c4544-0042-3510-8052-b4c04f4a3732", Disk: "S6PXNJ0R123456"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testkit.FormatsExample(t, "marker.json"), string(got)); diff != "" {
		t.Errorf("docs/formats.md (-page +got):\n%s", diff)
	}
}
