package imagebuild

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// signedToy builds with a fresh key and returns the folder and allowed_signers.
func signedToy(t *testing.T) (out, allowed string) {
	t.Helper()
	pair, err := sshsign.GenerateKey("release")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, pair.PrivateFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: key})
	if err != nil {
		t.Fatal(err)
	}
	allowed = filepath.Join(dir, "allowed_signers")
	if err := os.WriteFile(allowed, []byte(trust.Line(pair.PublicKey, "ops", trust.NamespaceManifest)+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	out = filepath.Join(dir, "out")
	in := toyInputs(t, newToyStore(t))
	if _, err := toyPlan(t, in, toyOptions).Write(t.Context(), out, t.TempDir(), signer, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	return out, allowed
}

// TestSignatures has everything checked by the tools that a person has.
func TestSignatures(t *testing.T) {
	out, allowed := signedToy(t)
	run := func(stdin, name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = out
		if stdin != "" {
			f, err := os.Open(filepath.Join(out, stdin))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.Stdin = f
		}
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v: %s (if it is missing: run scripts/setup)", name, strings.Join(args, " "), err, text)
		}
	}
	run("", "sha256sum", "--strict", "--check", "SHA256SUMS")
	principal := strings.Fields(string(must(os.ReadFile(allowed))))[0]
	for _, file := range []string{"SHA256SUMS", "netboot/manifest.json"} {
		run(file, "ssh-keygen", "-Y", "verify", "-n", "xnode-manifest", "-f", allowed, "-I", principal, "-s", file+".sig")
	}
	// Every output is listed, but for the list itself and what signs it.
	list := string(must(os.ReadFile(filepath.Join(out, "SHA256SUMS"))))
	for name := range hashes(t, out) {
		listed := strings.Contains(list, "  "+name+"\n")
		if want := !strings.HasPrefix(name, "SHA256SUMS"); listed != want {
			t.Errorf("SHA256SUMS lists %s = %t; want %t", name, listed, want)
		}
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// TestUnsignedRebuild builds without a key where a signed build was: its
// signatures must go, they are of other bytes.
func TestUnsignedRebuild(t *testing.T) {
	out, _ := signedToy(t)
	if report := inspect(t, filepath.Join(out, "netboot")); len(report.Problems) > 0 || report.Signer == "" {
		t.Errorf("Inspect of a signed tree = signer %q, problems %q", report.Signer, report.Problems)
	}
	if _, err := toyPlan(t, toyInputs(t, newToyStore(t)), toyOptions).Write(t.Context(), out, t.TempDir(), nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	for name := range hashes(t, out) {
		if strings.HasSuffix(name, ".sig") {
			t.Errorf("%s of the signed build is still there", name)
		}
	}
	if report := inspect(t, filepath.Join(out, "netboot")); len(report.Problems) > 0 || report.Signer != "" {
		t.Errorf("Inspect of an unsigned tree = signer %q, problems %q", report.Signer, report.Problems)
	}
}

func TestInspectSignature(t *testing.T) {
	out, _ := signedToy(t)
	file := filepath.Join(out, "netboot", "manifest.json.sig")
	data := must(os.ReadFile(file))
	for _, offset := range []int{0, 40, len(data) / 2, len(data) - 2} {
		checkRefused(t, file, data, offset)
	}
}
