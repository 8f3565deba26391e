package repo

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// files lists the repository as git knows it, new files that are not ignored
// included.
func files(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v; run scripts/setup", err)
	}
	var names []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil { // not one that was just removed
			names = append(names, name)
		}
	}
	if !slices.Contains(names, "go.mod") {
		t.Fatalf("git ls-files found %d files and no go.mod; the check would prove nothing", len(names))
	}
	return names
}

func TestProjectTree(t *testing.T) {
	names := files(t)
	violations, err := FileSizes(os.DirFS(root), names)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range append(violations, TopLevel(names)...) {
		t.Error(v)
	}
}

func TestTopLevelFindsStrangers(t *testing.T) {
	got := TopLevel([]string{"agent/x.go", "README.md", "pkg/util/x.go", "pkg/util/y.go", "Makefile"})
	var names []string
	for _, v := range got {
		names = append(names, v.Package)
	}
	if diff := cmp.Diff([]string{"pkg", "Makefile"}, names); diff != "" {
		t.Errorf("TopLevel (-want +got):\n%s", diff)
	}
}

func TestFileSizesFindsLongFiles(t *testing.T) {
	lines := func(n int) *fstest.MapFile { return &fstest.MapFile{Data: bytes.Repeat([]byte("x\n"), n)} }
	fsys := fstest.MapFS{
		"agent/long.go":      lines(maxLines + 1),
		"agent/fits.go":      lines(maxLines),
		"agent/long_test.go": lines(maxLines + 1),
		"cmd/x/main.go":      lines(maxMainLines + 1),
		"cmd/x/wire.go":      lines(maxMainLines + 1),
	}
	var names []string
	for name := range fsys {
		names = append(names, name)
	}
	slices.Sort(names)
	violations, err := FileSizes(fsys, names)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range violations {
		got = append(got, v.Package)
	}
	if diff := cmp.Diff([]string{"agent/long.go", "cmd/x/main.go"}, got); diff != "" {
		t.Errorf("FileSizes (-want +got):\n%s", diff)
	}
}

// documents are the texts whose paths and commands are checked.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".md") || strings.Contains(name, "testdata/") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(data)
	}
	if out["README.md"] == "" {
		t.Fatal("no README.md")
	}
	return out
}

func TestDocumentsNamePathsThatExist(t *testing.T) {
	for name, text := range documents(t) {
		paths := Paths(text)
		if name == "README.md" && len(paths) < 10 {
			t.Errorf("README.md names %d paths; is the map of the tree gone, or the pattern wrong?", len(paths))
		}
		for _, target := range Links(text) {
			paths = append(paths, filepath.ToSlash(filepath.Join(filepath.Dir(name), target)))
		}
		for _, path := range paths {
			found, err := fs.Glob(os.DirFS(root), path)
			if err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which does not exist", name, path)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	text := "See `internal/{cpio,kmod}/`, `./scripts/try`, `README.md`,\n" +
		"`build/bin/xnodeos`, `a/b`, `go test`, `/nix/store`.\n```sh\n`agent/never`\n```\n"
	want := []string{"internal/cpio", "internal/kmod", "scripts/try", "README.md"}
	if diff := cmp.Diff(want, Paths(text)); diff != "" {
		t.Errorf("Paths (-want +got):\n%s", diff)
	}
}

func TestLinks(t *testing.T) {
	text := "[a](docs/a.md#part) [b](b.md)\n[elsewhere](https://example.org/x) [here](#part)\n"
	if diff := cmp.Diff([]string{"docs/a.md", "b.md"}, Links(text)); diff != "" {
		t.Errorf("Links (-want +got):\n%s", diff)
	}
}

func TestCommands(t *testing.T) {
	text := "```sh\n$ ./scripts/try   # all of it\n\n# only this\nxnodeos image \\\n  build\n```\n```\nnot this\n```\n"
	want := []string{"./scripts/try", "xnodeos image    build"}
	if diff := cmp.Diff(want, Commands(text)); diff != "" {
		t.Errorf("Commands (-want +got):\n%s", diff)
	}
}

// A command of the documents is one of our scripts, or xnodeos or xnode with a
// subcommand and flags that its help knows, or a plain tool of the list.
func TestDocumentedCommandsExist(t *testing.T) {
	programs := buildPrograms(t)
	plain := []string{"git", "cd", "just", "ssh", "sha256sum"}
	texts := documents(t)
	commands := Commands(texts["README.md"])
	if len(commands) < 4 {
		t.Fatalf("README.md shows %d commands; are they fenced as sh?", len(commands))
	}
	for _, line := range append(commands, Commands(texts["docs/development.md"])...) {
		words := strings.Fields(line)
		name := filepath.Base(words[0])
		switch {
		case name == "xnodeos" || name == "xnode":
			checkProgram(t, filepath.Join(programs, name), line, words[1:])
		case strings.HasPrefix(strings.TrimPrefix(words[0], "./"), "scripts/"):
			checkScript(t, line, words)
		case !slices.Contains(plain, name):
			t.Errorf("the documents show %q: %s is neither a script, nor a program of ours, nor a known tool", line, words[0])
		}
	}
}

// checkProgram asks the program for help on the subcommand of a line and looks
// for each flag of the line in it.
func checkProgram(t *testing.T, program, line string, words []string) {
	t.Helper()
	name := filepath.Base(program)
	var sub []string
	for _, w := range words {
		if strings.HasPrefix(w, "-") || strings.ContainsAny(w, "/.*") {
			break
		}
		sub = append(sub, w)
	}
	if len(sub) > 2 {
		sub = sub[:2]
	}
	help, err := exec.CommandContext(t.Context(), program, append(sub, "--help")...).CombinedOutput()
	if err != nil {
		t.Errorf("the documents show %q: %s %s --help: %v", line, name, strings.Join(sub, " "), err)
		return
	}
	if len(sub) > 0 && !bytes.Contains(help, []byte(name+" "+strings.Join(sub, " "))) {
		t.Errorf("the documents show %q: %s has no subcommand %q", line, name, strings.Join(sub, " "))
	}
	checkFlags(t, line, words, string(help))
}

func checkScript(t *testing.T, line string, words []string) {
	t.Helper()
	help, err := exec.CommandContext(t.Context(), filepath.Join(root, words[0]), "--help").CombinedOutput()
	if err != nil {
		t.Errorf("the documents show %q: %s --help: %v\n%s", line, words[0], err, help)
		return
	}
	checkFlags(t, line, words, string(help))
}

func checkFlags(t *testing.T, line string, words []string, help string) {
	t.Helper()
	for _, w := range words {
		flag, _, _ := strings.Cut(w, "=")
		if strings.HasPrefix(flag, "--") && !strings.Contains(help, flag) {
			t.Errorf("the documents show %q: the help does not know %s", line, flag)
		}
	}
}

// buildPrograms builds xnodeos and xnode as scripts/setup does and returns their
// folder.
func buildPrograms(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=",
		"-o", folder+string(filepath.Separator), "./cmd/xnodeos", "./cmd/xnode")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return folder
}

// Every script explains itself and refuses what it does not know, at once and
// without doing anything.
func TestScriptsExplainThemselves(t *testing.T) {
	for _, name := range []string{"setup", "try", "test", "bench"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			script := filepath.Join(root, "scripts", name)
			help, err := exec.CommandContext(ctx, script, "--help").Output()
			if err != nil {
				t.Fatalf("--help: %v", err)
			}
			if !strings.HasPrefix(string(help), "Usage: scripts/"+name) || strings.Count(string(help), "\n") < 5 {
				t.Errorf("--help does not begin with its usage and explain itself:\n%s", help)
			}
			cmd := exec.CommandContext(ctx, script, "--no-such-flag")
			out, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != 2 || err == nil {
				t.Errorf("--no-such-flag: exit code %d; want 2\n%s", code, out)
			}
			if !strings.Contains(string(out), "--no-such-flag") || !strings.Contains(string(out), "--help") {
				t.Errorf("--no-such-flag: the message names neither the flag nor --help:\n%s", out)
			}
		})
	}
}
