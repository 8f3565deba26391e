package nix_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/nar"
)

func TestHashAgreesWithNix(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	for _, text := range []string{"", "a", "some words\n", strings.Repeat("x", 100000)} {
		h := nix.Hash(sha256.Sum256([]byte(text)))
		for form, got := range map[string]string{"to-base32": h.Base32(), "to-sri": h.String(), "to-base16": "sha256:" + h.Hex()} {
			want := n.run(t, "nix", "--extra-experimental-features", "nix-command", "hash", form, "--type", "sha256", h.Hex())
			if strings.TrimPrefix(got, "sha256:") != want {
				t.Errorf("%s of %x = %s; want %s", form, h, got, want)
			}
			if back, err := nix.ParseHash(got); err != nil || back != h {
				t.Errorf("ParseHash(%q) = %v, %v; want %v", got, back, err, h)
			}
		}
	}
}

func TestParseHashRefuses(t *testing.T) {
	t.Parallel()
	h := nix.Hash(sha256.Sum256(nil))
	for _, text := range []string{
		"", "sha256", "sha256:", "sha256-", "md5:" + h.Hex(), h.Hex(), "sha512-" + h.String()[7:],
		h.String()[:20], h.String() + "=", h.String()[:20] + "\n" + h.String()[20:], h.Base32()[:30], h.Base32() + "0",
		"sha256:" + strings.Repeat("e", 52), "sha256:z" + h.Base32()[8:], "sha256:" + strings.ToUpper(h.Hex()),
		strings.TrimSuffix(h.String(), "="), "sha256-" + strings.Repeat("A", 42) + "B=", // its last bits are not zero
	} {
		if got, err := nix.ParseHash(text); err == nil {
			t.Errorf("ParseHash(%q) = %v; want an error", text, got)
		}
	}
}

func TestHashInJSON(t *testing.T) {
	t.Parallel()
	want := map[string]nix.Hash{"h": sha256.Sum256([]byte("x"))}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]nix.Hash
	if err := json.Unmarshal(data, &got); err != nil || got["h"] != want["h"] || !strings.Contains(string(data), `"sha256-`) {
		t.Errorf("%s came back as %v, %v", data, got, err)
	}
}

const goodHash = "0123456789abcdfghijklmnpqrsvwxyz"

func TestParseStorePath(t *testing.T) {
	t.Parallel()
	good := "/nix/store/" + goodHash + "-name-1.2+a_b?c=D"
	p, err := nix.ParseStorePath(good)
	if err != nil {
		t.Fatal(err)
	}
	if string(p) != good || p.HashPart() != goodHash || p.Name() != "name-1.2+a_b?c=D" || p.Base() != goodHash+"-"+p.Name() {
		t.Errorf("%q = %q, %q, %q", good, p.Base(), p.HashPart(), p.Name())
	}
	if _, err := nix.ParseStorePath("/nix/store/" + goodHash + "-" + strings.Repeat("n", 211)); err != nil {
		t.Errorf("a name of 211 characters: %v", err)
	}
	for _, bad := range []string{
		"", "/", "/nix/store", "/nix/store/", goodHash + "-name", "/gnu/store/" + goodHash + "-name",
		"/nix/store/" + goodHash, "/nix/store/" + goodHash + "-", "/nix/store/" + goodHash + "name", "/nix/store/" + goodHash[1:] + "-name",
		"/nix/store/" + goodHash[1:] + "e-name", "/nix/store/" + goodHash[1:] + "A-name",
		good + "/bin", good + " ", good + "\n", good + "\x00", "/nix/store/" + goodHash + "-ä", "/nix/store/" + goodHash + "-.name",
		"/nix/store/" + goodHash + "-" + strings.Repeat("n", 212), "/nix/store//" + goodHash + "-name", "/nix/store/../" + goodHash + "-x",
	} {
		if got, err := nix.ParseStorePath(bad); !errors.Is(err, nix.ErrNotStorePath) {
			t.Errorf("ParseStorePath(%q) = %q, %v; want ErrNotStorePath", bad, got, err)
		}
	}
}

func TestSplitPath(t *testing.T) {
	t.Parallel()
	base := "/nix/store/" + goodHash + "-x"
	for path, below := range map[string]string{base: "", base + "/": "", base + "/bin/sh": "bin/sh"} {
		p, got, err := nix.SplitPath(path)
		if err != nil || string(p) != base || got != below {
			t.Errorf("SplitPath(%q) = %q, %q, %v; want %q below", path, p, got, err, below)
		}
	}
	if _, _, err := nix.SplitPath("/etc/passwd"); !errors.Is(err, nix.ErrNotStorePath) {
		t.Errorf("SplitPath outside the store = %v", err)
	}
}

func TestPathsAgreeWithNix(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	dir := filepath.Join(t.TempDir(), "my-source_1.0")
	writeFile(t, filepath.Join(dir, "a", "b"), "content")
	writeFile(t, filepath.Join(dir, "run"), "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if err := nar.Write(sum, dir); err != nil {
		t.Fatal(err)
	}
	got, err := nix.SourcePath("my-source_1.0", nix.Hash(sum.Sum(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if want := n.run(t, "nix-store", "--add", dir); string(got) != want {
		t.Errorf("SourcePath = %s; nix-store --add says %s", got, want)
	}
	file := filepath.Join(dir, "run")
	got, err = nix.FlatPath("run", sha256.Sum256([]byte("#!/bin/sh\n")))
	if err != nil {
		t.Fatal(err)
	}
	if want := n.run(t, "nix-store", "--add-fixed", "sha256", file); string(got) != want {
		t.Errorf("FlatPath = %s; nix-store --add-fixed says %s", got, want)
	}
	if _, err := nix.SourcePath("bad name", nix.Hash{}); !errors.Is(err, nix.ErrNotStorePath) {
		t.Errorf("SourcePath with a space = %v", err)
	}
}

func FuzzBase32(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{0xff})
	f.Add([]byte(goodHash))
	f.Fuzz(func(t *testing.T, data []byte) {
		text := nix.EncodeBase32(data)
		if len(text) != nix.Base32Len(len(data)) {
			t.Fatalf("%d bytes became %d characters", len(data), len(text))
		}
		back, err := nix.DecodeBase32(text)
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("DecodeBase32(%q) = %x, %v; want %x", text, back, err, data)
		}
		if decoded, err := nix.DecodeBase32(string(data)); err == nil && nix.EncodeBase32(decoded) != string(data) {
			t.Fatalf("%q is a second spelling of %x", data, decoded)
		}
	})
}

func FuzzParseHash(f *testing.F) {
	h := nix.Hash(sha256.Sum256(nil))
	for _, text := range []string{h.String(), h.Base32(), "sha256:" + h.Hex(), "sha256-", "sha256:0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := nix.ParseHash(text)
		if err != nil {
			return
		}
		if text != got.String() && text != got.Base32() && text != "sha256:"+got.Hex() {
			t.Fatalf("%q is another spelling of %v", text, got)
		}
	})
}

func FuzzStorePath(f *testing.F) {
	for _, path := range []string{"", "/nix/store/" + goodHash + "-x", "/nix/store/" + goodHash + "-x/bin", "/nix/store/../x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, below, err := nix.SplitPath(path)
		if err != nil {
			return
		}
		if again, err := nix.ParseStorePath(string(p)); err != nil || again != p {
			t.Fatalf("ParseStorePath(%q) = %q, %v", p, again, err)
		}
		if !strings.HasPrefix(path, string(p)) || below != "" && path != string(p)+"/"+below {
			t.Fatalf("SplitPath(%q) = %q, %q", path, p, below)
		}
		if filepath.Dir(string(p)) != nix.StoreDir || len(p.HashPart()) != nix.HashLen || p.Name() == "" {
			t.Fatalf("%q is not directly in the store", p)
		}
	})
}
