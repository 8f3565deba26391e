package nix_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
)

func TestCacheKeyShowsNoSecret(t *testing.T) {
	t.Parallel()
	key, err := nix.GenerateCacheKey("test-1")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %+v %#v", key, key, key); got != strings.TrimSpace(strings.Repeat(key.Public()+" ", 3)) {
		t.Errorf("the key prints as %q", got)
	}
	for _, name := range []string{"", "a:b", "a b", "a\n", "ä", "a#b", strings.Repeat("x", 129)} {
		if _, err := nix.GenerateCacheKey(name); err == nil || !strings.Contains(err.Error(), "cache.example.org-1") {
			t.Errorf("GenerateCacheKey(%q) = %v; want an error with an example", name, err)
		}
	}
}

// TestNixSignsWithCacheKey: the real Nix makes the public key out of the
// secret one, signs a path with it and checks that path by the public one.
func TestNixSignsWithCacheKey(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	key, err := nix.GenerateCacheKey("cache.example.org-1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	writeFile(t, file, string(key.Secret()))
	theirs := filepath.Join(dir, "theirs")
	n.run(t, "nix-store", "--generate-binary-cache-key", "other-1", theirs, theirs+".pub")
	for ours, path := range map[string]string{string(key.Secret()): theirs, key.Public(): theirs + ".pub"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		shape := func(text string) string {
			return regexp.MustCompile(`[A-Za-z0-9+/]`).ReplaceAllString(text[strings.Index(text, ":"):], "x")
		}
		if shape(string(data)) != shape(ours) {
			t.Errorf("Nix writes %s as %q, we %q", filepath.Base(path), shape(string(data)), shape(ours))
		}
	}

	path := n.build(t, "a") // not a source: those prove themselves by their name
	flags := []string{"--extra-experimental-features", "nix-command"}
	public, err := command.Output(t.Context(), command.Cmd{
		Name: "nix", Args: append(flags, "key", "convert-secret-to-public"), Stdin: strings.NewReader(string(key.Secret())), AddEnv: n.env,
	})
	if err != nil || string(public) != key.Public() {
		t.Errorf("Nix makes the public key %q, %v; we say %q", public, err, key.Public())
	}
	n.run(t, "nix", append(flags, "store", "sign", "--key-file", file, path)...)
	verify := func(public string) error {
		args := append([]string{"--store", n.store.Dir}, flags...)
		args = append(args, "--option", "trusted-public-keys", public, "store", "verify", "--sigs-needed", "1", path)
		_, err := command.Output(t.Context(), command.Cmd{Name: "nix", Args: args, AddEnv: n.env})
		return err
	}
	if err := verify(key.Public()); err != nil {
		t.Errorf("Nix does not take its own signature with our key: %v", err)
	}
	other, err := nix.GenerateCacheKey(key.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(other.Public()); err == nil {
		t.Error("Nix takes the path by another key of the same name")
	}
}

// TestParseCacheKey: what was written is read, and what is damaged is told
// without showing the secret.
func TestParseCacheKey(t *testing.T) {
	t.Parallel()
	key, err := nix.GenerateCacheKey("cache.example.org-1")
	if err != nil {
		t.Fatal(err)
	}
	secret := string(key.Secret())
	for _, text := range []string{secret, secret + "\n"} {
		got, err := nix.ParseCacheKey([]byte(text))
		if err != nil || got.Public() != key.Public() || string(got.Sign([]byte("x"))) != string(key.Sign([]byte("x"))) {
			t.Errorf("ParseCacheKey of what Secret wrote: %v, %v", got, err)
		}
	}
	public, err := nix.ParsePublicKey(key.Public())
	if err != nil || public.String() != key.Public() || public.Name != key.Name {
		t.Errorf("ParsePublicKey = %v, %v", public, err)
	}
	name, body, _ := strings.Cut(secret, ":")
	other := "A"
	if body[0] == 'A' {
		other = "B"
	}
	for what, text := range map[string]string{
		"nothing": "", "no name": ":" + body, "name only": name + ":", "cut off": secret[:60], "longer": secret + "AAAA",
		"public half": key.Public(), "other seed": name + ":" + other + body[1:], "spaces": " " + secret, "two lines": secret + "\n\n", "name": "a b:" + body,
	} {
		if got, err := nix.ParseCacheKey([]byte(text)); err == nil {
			t.Errorf("%s: ParseCacheKey = %v", what, got)
		} else if strings.Contains(err.Error(), body[4:40]) {
			t.Errorf("%s: the error shows the secret: %v", what, err)
		}
	}
	for _, text := range []string{"", "x", "x:", ":" + body, secret, key.Public() + "\n", key.Public() + "="} {
		if got, err := nix.ParsePublicKey(text); err == nil {
			t.Errorf("ParsePublicKey(%.20q...) = %v", text, got)
		}
	}
}
