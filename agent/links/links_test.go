package links

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/agent"
)

const (
	first  = "/nix/store/00000000000000000000000000000001-first"
	second = "/nix/store/00000000000000000000000000000002-second"
)

func open(t *testing.T) (*Links, string) {
	t.Helper()
	dir := t.TempDir()
	l, err := Open(filepath.Join(dir, "profiles"), filepath.Join(dir, "roots"))
	if err != nil {
		t.Fatal(err)
	}
	return l, dir
}

func TestProfile(t *testing.T) {
	t.Parallel()
	l, dir := open(t)
	for _, step := range []struct {
		system string
		want   map[string]string
	}{
		{first, map[string]string{"system": "system-1-link", "system-1-link": first}},
		{first, map[string]string{"system": "system-1-link", "system-1-link": first}},
		{second, map[string]string{"system": "system-2-link", "system-1-link": first, "system-2-link": second}},
		{first, map[string]string{"system": "system-1-link", "system-1-link": first, "system-2-link": second}},
	} {
		if err := l.SetProfile(step.system); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, tree(t, filepath.Join(dir, "profiles"))); diff != "" {
			t.Errorf("SetProfile(%s) (-want +got):\n%s", step.system, diff)
		}
		if got, err := l.Profile(); err != nil || got != step.system {
			t.Errorf("Profile() = %q, %v; want %q", got, err, step.system)
		}
	}
}

func TestProfileNumbersGoOnBehindTheHighest(t *testing.T) {
	t.Parallel()
	l, dir := open(t)
	if err := os.Symlink(first, filepath.Join(dir, "profiles", "system-41-link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(first, filepath.Join(dir, "profiles", "system-x-link")); err != nil {
		t.Fatal(err)
	}
	if err := l.SetProfile(second); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, filepath.Join(dir, "profiles"))["system"]; got != "system-42-link" {
		t.Errorf("the profile is %q; want system-42-link", got)
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	l, dir := open(t)
	if got, err := l.Root(agent.RootCandidate); err != nil || got != "" {
		t.Errorf("Root before the first = %q, %v", got, err)
	}
	for _, system := range []string{first, second} {
		if err := l.SetRoot(agent.RootCandidate, system); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]string{"candidate": second}, tree(t, filepath.Join(dir, "roots"))); diff != "" {
		t.Errorf("roots (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := l.SetRoot(agent.RootCandidate, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := tree(t, filepath.Join(dir, "roots")); len(got) > 0 {
		t.Errorf("roots after removal: %v", got)
	}
}

func TestOnlyStorePaths(t *testing.T) {
	t.Parallel()
	l, dir := open(t)
	for _, bad := range []string{"/etc", "../x", first + "/bin", first + "/../" + filepath.Base(second)} {
		if err := l.SetProfile(bad); err == nil {
			t.Errorf("SetProfile(%q) was taken", bad)
		}
		if err := l.SetRoot(agent.RootBooted, bad); err == nil {
			t.Errorf("SetRoot(%q) was taken", bad)
		}
	}
	if got := tree(t, filepath.Join(dir, "profiles")); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
}

// A link that was half made before a power cut is no hindrance.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	l, dir := open(t)
	if err := os.Symlink(first, filepath.Join(dir, "roots", "booted.tmp")); err != nil {
		t.Fatal(err)
	}
	if err := l.SetRoot(agent.RootBooted, second); err != nil {
		t.Fatal(err)
	}
	if got, _ := l.Root(agent.RootBooted); got != second {
		t.Errorf("root = %q; want %q", got, second)
	}
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if out[e.Name()], err = os.Readlink(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for name := range out {
		if name == "system-x-link" {
			delete(out, name)
		}
	}
	return out
}
