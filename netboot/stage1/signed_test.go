package stage1

import (
	"context"
	"net/http"
	"net/http/httptest"
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

// TestSequenceFloor: servers may not offer an older image by its signature; one
// whose hash is named is wanted as it is.
func TestSequenceFloor(t *testing.T) {
	t.Parallel()
	pair, err := sshsign.GenerateKey("ops")
	if err != nil {
		t.Fatal(err)
	}
	signers, err := trust.Parse([]byte(trust.Line(pair.PublicKey, "ops", trust.NamespaceManifest)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pinned := writePayload(t, dir, 4096) // its sequence is 0
	data, err := os.ReadFile(filepath.Join(dir, fetch.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := pair.Sign(t.Context(), trust.NamespaceManifest, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fetch.SignatureName), signature, 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	signed := wantedManifest{fetch.Check{Signers: signers}}
	for name, tt := range map[string]struct {
		want  wantedManifest
		floor uint32
		error string
	}{
		"no floor":        {signed, 0, ""},
		"below the floor": {signed, 5, "has sequence 0, older than the 5 that this node has seen"},
		"hash is named":   {pinned, 5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := httpFrom(t, tt.want, server.URL)
			h.floor = func() uint32 { return tt.floor }
			c, err := h.Next(t.Context(), nil)
			if tt.error == "" && (err != nil || c.Manifest.Label != "toy-1") || tt.error != "" && (err == nil || !strings.Contains(err.Error(), tt.error)) {
				t.Errorf("Next = %+v, %v; want the error %q", c, err, tt.error)
			}
		})
	}
}
