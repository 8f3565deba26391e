package stage1

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
	"xnodeos.org/netboot/stage1/fetch"
)

// TestSignedManifestOnMedium: without a hash on the command line a payload on
// any medium counts by the signature beside its manifest.
func TestSignedManifestOnMedium(t *testing.T) {
	t.Parallel()
	pair, err := sshsign.GenerateKey("ops")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pair.PrivateFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := sshsign.Open(context.Background(), sshsign.OpenOptions{Path: file})
	if err != nil {
		t.Fatal(err)
	}
	signers, err := trust.Parse([]byte(trust.Line(pair.PublicKey, "ops", trust.NamespaceManifest)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := wanted("", fetch.Check{Signers: signers})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pinned := writePayload(t, dir, 4096)
	if _, _, err := want.read(dir); err == nil || !strings.Contains(err.Error(), "is not signed") {
		t.Errorf("without a signature: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, fetch.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(t.Context(), trust.NamespaceManifest, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fetch.SignatureName), signature, 0o600); err != nil {
		t.Fatal(err)
	}
	if m, digest, err := want.read(dir); err != nil || m.Label != "toy-1" || digest != pinned.Digest {
		t.Errorf("%+v, %s, %v; want the signed manifest", m, digest, err)
	}
	damage(t, filepath.Join(dir, fetch.ManifestName), 20)
	if _, _, err := want.read(dir); err == nil || !strings.Contains(err.Error(), manifest.FileName) {
		t.Errorf("changed after it was signed: %v", err)
	}
}
