package localbuild_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/localbuild"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/testkit/nixstore"
	"xnodeos.org/internal/unit"
)

func request() localbuild.Request {
	return localbuild.Request{
		Nix: "/run/current-system/sw/bin/nix", Repo: "/var/lib/xnode/follower/repo", Ref: "refs/tags/xnode/1042", Commit: strings.Repeat("0a", 20),
		Attribute: "nixosConfigurations.edge.config.system.build.toplevel", System: nix.StorePath(nixstore.PathOf("system")),
		Link: "/nix/var/nix/gcroots/xnode/built", Memory: 2 << 30, Limit: time.Hour, Caches: []string{"https://cache.example.org"},
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	s, err := localbuild.Plan(request())
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != localbuild.UnitName || s.MemoryMax != 2<<30 || s.RuntimeMax != time.Hour || s.TasksMax == 0 {
		t.Errorf("the unit has no limits: %+v", s)
	}
	line := strings.Join(s.Argv, " ")
	for _, want := range []string{
		"accept-flake-config false", "pure-eval true", "allow-import-from-derivation false", "--no-update-lock-file", "--store local",
		"git+file:///var/lib/xnode/follower/repo?rev=" + strings.Repeat("0a", 20) + "&ref=refs/tags/xnode/1042&shallow=1#nixosConfigurations.edge.",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("the command has no %q: %s", want, line)
		}
	}
	for name, change := range map[string]func(*localbuild.Request){
		"relative":   func(r *localbuild.Request) { r.Nix = "nix" },
		"query":      func(r *localbuild.Request) { r.Repo = "/x?dir=/etc" },
		"dots":       func(r *localbuild.Request) { r.Link = "/nix/../x" },
		"commit":     func(r *localbuild.Request) { r.Commit = "HEAD" },
		"branch":     func(r *localbuild.Request) { r.Ref = "main" },
		"ref query":  func(r *localbuild.Request) { r.Ref = "refs/x&dir=y" },
		"ref dots":   func(r *localbuild.Request) { r.Ref = "refs/../x" },
		"option":     func(r *localbuild.Request) { r.Attribute = "x --impure" },
		"expression": func(r *localbuild.Request) { r.Attribute = `x."a b"` },
		"outputs":    func(r *localbuild.Request) { r.Attribute = "x^*" },
		"empty name": func(r *localbuild.Request) { r.Attribute = "x..y" },
		"system":     func(r *localbuild.Request) { r.System = "/etc" },
		"memory":     func(r *localbuild.Request) { r.Memory = 0 },
		"time":       func(r *localbuild.Request) { r.Limit = 0 },
		"cache":      func(r *localbuild.Request) { r.Caches = []string{"a b"} },
	} {
		r := request()
		change(&r)
		if s, err := localbuild.Plan(r); err == nil {
			t.Errorf("%s: Plan took it: %q", name, s.Argv)
		}
	}
}

const flake = `{
  nixConfig.extra-substituters = [ "http://127.0.0.1:1" ];
  outputs = { self }: {
    good = derivation { name = "system"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo built >$out; exit 0" ]; };
    impure = derivation { name = "impure"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" (builtins.readFile /etc/hostname) ]; };
    bad = derivation { name = "bad"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "exit 3" ]; };
  };
}
`

// TestRealNix runs what Plan says on a bare, shallow repository.
func TestRealNix(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("nix")
	if err != nil {
		t.Fatal("nix is not installed; run scripts/setup")
	}
	store := nixstore.New(t, "sandbox = true\nsandbox-paths = /bin /usr /lib /lib64\n")
	dir := t.TempDir()
	work, bare := filepath.Join(dir, "work"), filepath.Join(dir, "bare.git")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "flake.nix"), []byte(flake), 0o644); err != nil {
		t.Fatal(err)
	}
	testkit.RunTool(t, "git", "init", "-q", "-b", "main", work)
	testkit.RunTool(t, "git", "-C", work, "add", "flake.nix")
	testkit.RunTool(t, "git", "-C", work, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false", "commit", "-qm", "one")
	testkit.RunTool(t, "git", "clone", "-q", "--bare", "--depth", "1", "file://"+work, bare)
	r := request()
	r.Nix, r.Repo, r.Store, r.Link, r.Caches = program, bare, store.URL(), filepath.Join(dir, "built"), nil
	r.Ref = "refs/heads/main"
	r.Commit = strings.TrimSpace(testkit.RunTool(t, "git", "-C", bare, "rev-parse", "HEAD"))

	build := func(attribute string) unit.Result {
		r.Attribute = attribute
		s, err := localbuild.Plan(r)
		if err != nil {
			t.Fatal(err)
		}
		env := slices.Concat(store.Env, s.Env, []string{"HOME=" + dir, "XDG_CACHE_HOME=" + dir})
		err = command.Run(t.Context(), command.Cmd{Name: s.Argv[0], Args: s.Argv[1:], AddEnv: env})
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Logf("%s: %v", attribute, err)
			return unit.Result{State: unit.Ended, Reason: "exit-code", ExitCode: failed.ExitCode()}
		}
		if err != nil {
			t.Fatal(err)
		}
		return unit.Result{State: unit.Ended, Reason: "success"}
	}

	var other *localbuild.OtherError
	if err := localbuild.Judge(r, build("good")); !errors.As(err, &other) || other.Want != string(r.System) {
		t.Fatalf("a system that the release does not name: %v; want an *OtherError", err)
	}
	if _, err := os.Lstat(r.Link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its link is still there: %v", err)
	}
	r.System = nix.StorePath(other.Got)
	if err := localbuild.Judge(r, build("good")); err != nil {
		t.Error(err)
	}
	for _, attribute := range []string{"bad", "impure"} {
		if err := localbuild.Judge(r, build(attribute)); err == nil || !strings.Contains(err.Error(), "journalctl") {
			t.Errorf("%s: %v; want a failure", attribute, err)
		}
	}
}
