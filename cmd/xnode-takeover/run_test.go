package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/netboot/takeover"
)

// testFile writes a takeover file whose parts are junk: it is read, judged and
// always refused before anything is tried on the kernel of this machine.
func testFile(t *testing.T) string {
	t.Helper()
	elf := make([]byte, 200)
	copy(elf, "\x7fELF\x02\x01\x01")
	elf[16], elf[18], elf[20] = 2, 62, 1
	elf[52], elf[54], elf[58], elf[199] = 64, 56, 64, 1
	image, err := takeoverfile.Layout(takeoverfile.Spec{Program: elf, Kernel: []byte("kernel"), Initrd: []byte("initrd"), Manifest: []byte("{}"), Cmdline: "quiet"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := image.Write(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, out.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// try runs the command without a terminal.
func try(t *testing.T, program string, args ...string) (stdout string, code int, err error) {
	t.Helper()
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	var out, stderr bytes.Buffer
	err = run(t.Context(), args, host{stdin: stdin, stdout: &out, stderr: &stderr, program: program})
	return out.String(), exitCode(err, false), err
}

func TestRunRefuses(t *testing.T) {
	whole := testFile(t)
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, data, 0o755); err != nil {
			t.Fatal(err)
		}
		return name
	}
	changed := bytes.Clone(data)
	changed[10] ^= 1
	for _, tc := range []struct {
		name    string
		program string
		args    []string
		code    int
		want    string
	}{
		{"unknown flag", whole, []string{"--frob"}, 2, "-frob"},
		{"argument", whole, []string{"now"}, 2, `unexpected argument "now"`},
		{"nobody to ask", whole, nil, 2, "--yes"},
		{"bad call", whole, []string{"--dry-run", "--syscall", "both"}, 2, "want auto, file or load"},
		{"bad URL", whole, []string{"--dry-run", "--payload-url", "ftp://x/y"}, 2, "want http://HOST/FOLDER"},
		{"two words", whole, []string{"--dry-run", "--append", "a b"}, 2, "want one word"},
		{"bare program", write("bare", data[:200]), []string{"--dry-run"}, 1, "bare program"},
		{"changed program", write("changed", changed), []string{"--dry-run"}, 1, "damaged"},
		{"cut", write("cut", append(bytes.Clone(data[:len(data)-200]), data[len(data)-64:]...)), []string{"--yes"}, 1, "damaged"},
		{"no node config", whole, []string{"--dry-run", "--node-config", "/nonexistent"}, 1, "node config"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, code, err := try(t, tc.program, tc.args...)
			if code != tc.code || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("code %d, %v; want %d and %q", code, err, tc.code, tc.want)
			}
		})
	}
}

func TestDryRunSaysItAsJSON(t *testing.T) {
	stdout, code, err := try(t, testFile(t), "--dry-run", "--json")
	var refused *takeover.RefusedError
	if code != 1 || !errors.As(err, &refused) {
		t.Fatalf("code %d, %v; want a refusal", code, err)
	}
	var v takeover.Verdict
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	if v.Status != takeover.Fail || v.V != 1 || v.Method != "" || len(v.Checks) < 9 {
		t.Errorf("verdict %+v; want a failed one with all checks", v)
	}
}

func TestHelp(t *testing.T) {
	stdout, code, err := try(t, testFile(t), "--help")
	if err != nil || code != 0 || stdout != help {
		t.Errorf("--help: code %d, %v, %q", code, err, stdout)
	}
}
