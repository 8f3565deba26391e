package cpio

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// gnuCPIO runs GNU cpio in dir, with stdin, and returns what it prints.
func gnuCPIO(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	cmd := exec.CommandContext(t.Context(), "cpio", append([]string{"--quiet"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("cpio %q: %v\n%s", args, err, &stderr)
	}
	if stderr.Len() > 0 {
		t.Errorf("cpio %q complains: %s", args, &stderr)
	}
	return out.String()
}

func TestGNUListsOurs(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	sample(t, NewWriter(&buf))
	got := gnuCPIO(t, t.TempDir(), buf.String(), "-tv", "--numeric-uid-gid")
	got = regexp.MustCompile(` +`).ReplaceAllString(got, " ")
	want := `drwxr-xr-x 2 0 0 0 Jan 1 1970 dev
crw------- 1 0 0 5, 1 Jan 1 1970 dev/console
brw-rw---- 1 0 0 7, 0 Jan 1 1970 dev/loop0
-rwxr-xr-x 1 0 0 5 Jan 1 1970 init
drwxr-xr-x 2 0 0 0 Jan 1 1970 bin
lrwxrwxrwx 1 0 0 5 Jan 1 1970 bin/sh -> /init
drwxr-xr-x 2 0 0 0 Jan 1 1970 lib
drwxr-xr-x 2 0 0 0 Jan 1 1970 lib/modules
drwxr-xr-x 2 0 0 0 Jan 1 1970 lib/modules/6.1
-rw-r--r-- 1 0 0 0 Jan 1 1970 lib/modules/6.1/empty.ko
drwxrwxrwt 2 0 0 0 Jan 1 1970 tmp
-rw------- 1 0 0 4 Jan 1 1970 lib/name with ` + "ä and \xff\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cpio -tv of our archive (-want +got):\n%s", diff)
	}
}

func TestGNUUnpacksOurs(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789", 200_000)
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, f := range []struct{ name, body string }{{"a/b/c", "text\n"}, {"big", big}, {"empty", ""}} {
		if err := w.File(f.name, 0o640, int64(len(f.body)), strings.NewReader(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Symlink("link", "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	gnuCPIO(t, dir, buf.String(), "-i", "--no-preserve-owner")
	for name, want := range map[string]string{"a/b/c": "text\n", "big": big, "empty": "", "link": "text\n"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s unpacked: %d bytes, %v; want %d bytes", name, len(got), err, len(want))
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "big")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("big unpacked with mode %v, %v; want 0640", info.Mode(), err)
	}
}

func TestWeReadGNU(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "etc", "deep"), 0o755),
		os.WriteFile(filepath.Join(dir, "etc", "file"), []byte("content"), 0o600),
		os.Symlink("../file", filepath.Join(dir, "etc", "deep", "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	names := ".\n./etc\n./etc/file\n./etc/deep\n./etc/deep/link\n"
	for _, format := range []string{"newc", "crc"} {
		got, err := readAll(NewReader(strings.NewReader(gnuCPIO(t, dir, names, "-o", "-H", format))))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, e := range got {
			lines = append(lines, e.Name+" "+e.Body)
		}
		want := []string{". ", "etc ", "etc/file content", "etc/deep ", "etc/deep/link ../file"}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Errorf("%s archive of GNU cpio (-want +got):\n%s", format, diff)
		}
	}
	_, err := NewReader(strings.NewReader(gnuCPIO(t, dir, names, "-o", "-H", "odc"))).Next()
	if err == nil || !strings.Contains(err.Error(), "old portable") {
		t.Errorf("odc archive: %v; want a hint at the format", err)
	}
}
