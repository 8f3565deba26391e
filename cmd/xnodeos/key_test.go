package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/sshsign"
)

// TestOpenSigner: what `key new` made is what --sign opens.
func TestOpenSigner(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	path := filepath.Join(t.TempDir(), "key")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"key", "new", "--for", "manifest", "--out", path}, strings.NewReader(""), &stdout, &stderr); code != 0 {
		t.Fatalf("key new: exit %d, %s", code, stderr.String())
	}
	for _, name := range []string{path, path + ".pub"} {
		signer, err := openSigner(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		armored, err := signer.Sign(t.Context(), "xnode-manifest", []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sshsign.Verify("xnode-manifest", []byte("m"), armored); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := openSigner(t.Context(), path+".pub"); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK is not set") {
		t.Errorf("openSigner of a public key alone = %v; want what is missing", err)
	}
}

func TestShellWord(t *testing.T) {
	for path, want := range map[string]string{"a/b-c.d": "a/b-c.d", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := shellWord(path); got != want {
			t.Errorf("shellWord(%q) = %s; want %s", path, got, want)
		}
	}
}
