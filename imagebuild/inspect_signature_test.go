package imagebuild

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/sshsign"
)

// TestInspectForeignSignature: a signature that is sound by itself says nothing
// about this manifest if it was made for another purpose or another manifest.
func TestInspectForeignSignature(t *testing.T) {
	out, _ := signedToy(t)
	other, _ := signedToy(t)
	folder := filepath.Join(out, "netboot")
	manifest := must(os.ReadFile(filepath.Join(folder, "manifest.json")))
	pair, err := sshsign.GenerateKey("release")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, pair.PrivateFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: key})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(namespace string, data []byte) []byte { return must(signer.Sign(t.Context(), namespace, data)) }
	for _, tc := range []struct {
		name      string
		signature []byte
		want      string // "" for no problem
	}{
		{"by any key for manifests", sign("xnode-manifest", manifest), ""},
		{"for another purpose", sign("git", manifest), `namespace "git"`},
		{"of another manifest", sign("xnode-manifest", []byte("{}")), "does not fit"},
		{"empty", nil, "want one block"},
		{"very long", make([]byte, sshsign.MaxArmored+1), "allowed are"},
		{"of the sums", must(os.ReadFile(filepath.Join(other, "SHA256SUMS.sig"))), "does not fit"},
	} {
		if err := os.WriteFile(filepath.Join(folder, "manifest.json.sig"), tc.signature, 0o666); err != nil {
			t.Fatal(err)
		}
		report := inspect(t, folder)
		problems := strings.Join(report.Problems, "\n")
		if tc.want == "" && (problems != "" || report.Signer != pair.PublicKey.Fingerprint()) || tc.want != "" && !strings.Contains(problems, tc.want) {
			t.Errorf("signature %s: signer %q, problems %q; want %q", tc.name, report.Signer, problems, tc.want)
		}
	}
}
