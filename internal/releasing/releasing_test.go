package releasing_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/releasing"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/internal/trust"
)

const owner = "stable._xnode.fleet.example.org"

// template stands for configs/minimal, which internal/ may not import.
var template = fstest.MapFS{
	"xnode.toml": {Data: []byte(`[fleet]
name = "minimal"
record = "stable._xnode.fleet.example.org"
remotes = ["https://git.example.org/fleet.git"]
caches = ["https://cache.example.org"]

[classes.edge]
medium = "live"
`)},
	"nodes/README.md": {Data: []byte("x\n")},
}

// zone is a name server as the release sees it.
type zone struct {
	texts []string // in the order of publication
	err   error
}

func (z *zone) Publish(_ context.Context, r dnsupdate.Record) error {
	if z.err != nil {
		return z.err
	}
	z.texts = append(z.texts, r.Text)
	return nil
}

// fleetWorld is a config repository with two remotes and a clock.
type fleetWorld struct {
	options releasing.Options
	signers *trust.Signers
	first   string // bare repositories
	second  string
	now     time.Time
	dns     *zone
}

func newFleet(t *testing.T) *fleetWorld {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_AUTHOR_NAME", "A U Thor")
	t.Setenv("GIT_AUTHOR_EMAIL", "a@example.org")
	t.Setenv("GIT_COMMITTER_NAME", "A U Thor")
	t.Setenv("GIT_COMMITTER_EMAIL", "a@example.org")
	base := t.TempDir()
	w := &fleetWorld{first: filepath.Join(base, "first.git"), second: filepath.Join(base, "second.git"), now: time.Unix(1795180800, 0).UTC(), dns: &zone{}}
	for _, bare := range []string{w.first, w.second} {
		git(t, base, "init", "-q", "--bare", bare)
	}
	made, err := releasing.Init(t.Context(), releasing.InitOptions{
		Dir: filepath.Join(base, "fleet"), Template: template, Record: owner, Remotes: []string{w.first, w.second},
		Caches: []string{"https://cache.example.org"}, Now: w.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	settings, err := releasing.LoadSettings(made.Settings)
	if err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(base, "store")
	if err := testkit.WriteToyStore(store); err != nil {
		t.Fatal(err)
	}
	w.options = releasing.Options{
		Dir: made.Repository, Settings: settings, Systems: map[string]string{"edge": testkit.ToySystem}, Now: w.clock, DNS: w.dns,
		Build: func(_ context.Context, word string) (releasing.Built, error) {
			path, err := nix.ParseStorePath(word)
			return releasing.Built{Store: nix.Store{Dir: store}, Path: path}, err
		},
	}
	w.open(t, made.Keys)
	return w
}

func (w *fleetWorld) clock() time.Time { return w.now }

func (w *fleetWorld) open(t *testing.T, keys string) {
	t.Helper()
	for name, into := range map[string]**sshsign.Signer{"announce": &w.options.Announce, "git": &w.options.Git} {
		signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: filepath.Join(keys, name)})
		if err != nil {
			t.Fatal(err)
		}
		*into = signer
	}
	secret, err := os.ReadFile(filepath.Join(keys, "cache-key"))
	if err != nil {
		t.Fatal(err)
	}
	if w.options.CacheKey, err = nix.ParseCacheKey(secret); err != nil {
		t.Fatal(err)
	}
	allowed, err := os.ReadFile(filepath.Join(w.options.Dir, releasing.SignersFile))
	if err != nil {
		t.Fatal(err)
	}
	if w.signers, err = trust.Parse(allowed); err != nil {
		t.Fatal(err)
	}
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := gitserver.Git(t.Context(), dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// done names the steps that were really done.
func done(r *releasing.Result) string {
	var out []string
	for _, s := range r.Steps {
		if s.State == "done" {
			out = append(out, s.Name)
		}
	}
	return strings.Join(out, " ")
}

func (w *fleetWorld) release(t *testing.T) *releasing.Result {
	t.Helper()
	r, err := releasing.Release(t.Context(), w.options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *fleetWorld) change(t *testing.T, c releasing.Change) *releasing.Result {
	t.Helper()
	r, err := releasing.ChangeRecord(t.Context(), w.options, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkNode reads a remote as a node does and returns the record.
func (w *fleetWorld) checkNode(t *testing.T, bare string, want *releasing.Result) *announce.Record {
	t.Helper()
	record, err := announce.Parse(git(t, bare, "cat-file", "blob", "announce:"+owner+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := record.Verify(owner, w.signers); err != nil {
		t.Error(err)
	}
	if record.Text() != want.Record || record.Sequence != want.Sequence || record.Commit != want.Commit || record.Halted != want.Halted {
		t.Errorf("announced is %s; want %+v", record, want)
	}
	if tag := git(t, bare, "rev-parse", "refs/tags/"+want.Tag); tag != want.Commit {
		t.Errorf("the tag names %s; want the commit itself, %s", tag, want.Commit)
	}
	data := git(t, bare, "cat-file", "blob", want.Tag+":release.json") + "\n"
	r, err := release.Open([]byte(data), record.Digest, record.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenNodes([]byte(git(t, bare, "cat-file", "blob", want.Tag+":nodes.json") + "\n")); err != nil {
		t.Error(err)
	}
	target, err := r.For("edge", "x86_64-linux")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := nix.ParseHash(target.Closure)
	if err != nil || target.System != testkit.ToySystem {
		t.Errorf("target %+v, %v", target, err)
	}
	if _, err := os.Stat(filepath.Join(w.options.Settings.Cache, cache.ListName(digest))); err != nil {
		t.Error(err)
	}
	git(t, w.options.Dir, "-c", "gpg.format=ssh", "-c", "gpg.ssh.allowedSignersFile="+releasing.SignersFile, "verify-commit", want.Commit)
	git(t, bare, "fsck", "--strict")
	return record
}

// TestRelease goes through the life of a fleet: first release, the same again,
// refresh, halt, resume, a second one.
func TestRelease(t *testing.T) {
	w := newFleet(t)
	first := w.release(t)
	if got := done(first); got != "cache commit push push record announce announce dns" {
		t.Errorf("the first release did %q", got)
	}
	w.checkNode(t, w.first, first)
	w.checkNode(t, w.second, first)
	if out := git(t, w.options.Dir, "status", "--porcelain"); out != "" {
		t.Errorf("the work tree is dirty after a release:\n%s", out)
	}
	w.now = w.now.Add(time.Hour)
	again := w.release(t)
	if done(again) != "dns" || again.Record != first.Record || again.Commit != first.Commit {
		t.Errorf("the same release again did %q and is %+v", done(again), again)
	}
	for _, tt := range []struct {
		change releasing.Change
		did    string
		halted bool
	}{
		{releasing.Refresh, "record announce announce dns", false},
		{releasing.Halt, "record announce announce dns", true},
		{releasing.Halt, "dns", true},
		{releasing.Refresh, "record announce announce dns", true},
		{releasing.Resume, "record announce announce dns", false},
		{releasing.Resume, "dns", false},
	} {
		before := w.checkNode(t, w.first, lastOf(t, w, first))
		r := w.change(t, tt.change) // in the same second: time must still rise
		after := w.checkNode(t, w.second, r)
		if done(r) != tt.did || r.Halted != tt.halted || after.Published < before.Published || (tt.did != "dns") != (after.Published > before.Published) {
			t.Errorf("%s did %q, halted %t, t %d after %d", tt.change, done(r), r.Halted, after.Published, before.Published)
		}
	}
	// A release while it is halted leaves it so.
	halted := w.change(t, releasing.Halt)
	if r := w.release(t); !r.Halted || r.Record != halted.Record {
		t.Errorf("a repeated release ended the halt: %+v", r)
	}
	commitFile(t, w, "xnode.toml", strings.Replace(read(t, w, "xnode.toml"), `medium = "live"`, "medium = \"live\"\nbarrier = \"data-2\"", 1))
	second := w.release(t)
	if second.Sequence != 2 || second.Halted || done(second) != "commit push push record announce announce dns" {
		t.Errorf("the second release is %+v", second)
	}
	w.checkNode(t, w.first, second)
	if got := w.dns.texts[len(w.dns.texts)-1]; got != second.Record {
		t.Errorf("DNS has %q", got)
	}
}

func lastOf(t *testing.T, w *fleetWorld, of *releasing.Result) *releasing.Result {
	t.Helper()
	text := git(t, w.first, "cat-file", "blob", "announce:"+owner+".txt")
	record, err := announce.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &releasing.Result{Sequence: of.Sequence, Commit: of.Commit, Tag: of.Tag, Record: text, Halted: record.Halted}
}

func read(t *testing.T, w *fleetWorld, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.options.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func commitFile(t *testing.T, w *fleetWorld, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.options.Dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, w.options.Dir, "add", "-A")
	git(t, w.options.Dir, "-c", "commit.gpgsign=false", "commit", "-q", "-m", name)
}

// TestResumes cuts a release off at every point where something outside can
// fail, and runs it again.
func TestResumes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cut   func(t *testing.T, w *fleetWorld) (mend func())
		wants string
	}{
		{"first remote dead", func(_ *testing.T, w *fleetWorld) func() { return moveAway(w.first) }, "cache commit push push record announce announce dns"},
		{"push refused", func(t *testing.T, w *fleetWorld) func() {
			hook := filepath.Join(w.second, "hooks", "pre-receive")
			writeFile(t, hook, "#!/bin/sh\nexit 1\n", 0o755)
			return func() { os.Remove(hook) }
		}, "push record announce announce dns"},
		{"announce refused", func(t *testing.T, w *fleetWorld) func() {
			hook := filepath.Join(w.second, "hooks", "update")
			writeFile(t, hook, "#!/bin/sh\ntest $1 != refs/heads/announce\n", 0o755)
			return func() { os.Remove(hook) }
		}, "announce dns"},
		{"DNS dead", func(_ *testing.T, w *fleetWorld) func() {
			w.dns.err = errors.New("the server does not answer")
			return func() { w.dns.err = nil }
		}, "dns"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newFleet(t)
			mend := tt.cut(t, w)
			if r, err := releasing.Release(t.Context(), w.options); err == nil {
				t.Fatalf("Release = %+v; want an error", r)
			} else if r == nil {
				t.Fatal("no result beside the error")
			}
			mend()
			r := w.release(t)
			if done(r) != tt.wants || r.Sequence != 1 {
				t.Errorf("the second run did %q as release %d; want %q as 1", done(r), r.Sequence, tt.wants)
			}
			w.checkNode(t, w.first, r)
			w.checkNode(t, w.second, r)
		})
	}
}

func moveAway(dir string) func() {
	if err := os.Rename(dir, dir+".away"); err != nil {
		panic(err)
	}
	return func() {
		if err := os.Rename(dir+".away", dir); err != nil {
			panic(err)
		}
	}
}

func writeFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// TestCutInWorkTree: the commit was made and the work tree not yet brought
// along.
func TestCutInWorkTree(t *testing.T) {
	w := newFleet(t)
	first := w.release(t)
	for _, name := range []string{release.FileName, release.NodesName} {
		if err := os.Remove(filepath.Join(w.options.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.release(t); r.Commit != first.Commit {
		t.Errorf("Release = %+v; want the one that was made", r)
	}
	if out := git(t, w.options.Dir, "status", "--porcelain"); out != "" {
		t.Errorf("the work tree is dirty:\n%s", out)
	}
}

func TestReleaseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, w *fleetWorld)
		want string
	}{
		{"dirty", func(t *testing.T, w *fleetWorld) {
			writeFile(t, filepath.Join(w.options.Dir, "x"), "x", 0o644)
		}, "1 files are not committed (x)"},
		{"no clone", func(t *testing.T, w *fleetWorld) { w.options.Dir = t.TempDir() }, "xnodeos init"},
		{"no branch", func(t *testing.T, w *fleetWorld) { git(t, w.options.Dir, "checkout", "-q", "--detach") }, "git switch main"},
		{"announce checked out", func(t *testing.T, w *fleetWorld) { git(t, w.options.Dir, "checkout", "-q", "-b", "announce") }, "records only"},
		{"unknown class", func(_ *testing.T, w *fleetWorld) { w.options.Systems["core"] = "x" }, `no class "core"`},
		{"class without system", func(_ *testing.T, w *fleetWorld) { w.options.Systems = nil }, "--system edge="},
		{"wrong medium", func(t *testing.T, w *fleetWorld) {
			commitFile(t, w, "xnode.toml", strings.Replace(read(t, w, "xnode.toml"), `"live"`, `"installed"`, 1))
		}, "correct the class"},
		{"broken xnode.toml", func(t *testing.T, w *fleetWorld) { commitFile(t, w, "xnode.toml", "[fleet\n") }, "xnode.toml:2"},
		{"key not listed", func(t *testing.T, w *fleetWorld) {
			signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, 7)})
			if err != nil {
				t.Fatal(err)
			}
			w.options.Announce = signer
		}, "does not list"},
		{"key of another role", func(_ *testing.T, w *fleetWorld) { w.options.Announce = w.options.Git }, "not for xnode-announce"},
		{"no signers", func(t *testing.T, w *fleetWorld) {
			git(t, w.options.Dir, "rm", "-q", releasing.SignersFile)
			commitFile(t, w, "x", "x")
		}, "is missing"},
		{"remote ahead", func(t *testing.T, w *fleetWorld) {
			w.release(t)
			other := filepath.Join(t.TempDir(), "other")
			git(t, t.TempDir(), "clone", "-q", "-b", "main", w.first, other)
			git(t, other, "commit", "-q", "--allow-empty", "-m", "other")
			git(t, other, "push", "-q", w.first, "main")
		}, "git pull --rebase"},
		{"tag moved on the remote", func(t *testing.T, w *fleetWorld) {
			w.release(t)
			git(t, w.first, "update-ref", "refs/tags/xnode/1", git(t, w.first, "rev-parse", "announce"))
		}, "never moved"},
		{"released elsewhere", func(t *testing.T, w *fleetWorld) {
			w.release(t)
			git(t, w.options.Dir, "reset", "-q", "--hard", "HEAD^")
			git(t, w.first, "update-ref", "refs/heads/main", "main^")
			git(t, w.second, "update-ref", "refs/heads/main", "main^")
		}, "get it first with: git pull"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newFleet(t)
			tt.do(t, w)
			_, err := releasing.Release(t.Context(), w.options)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Release = %v; want %q", err, tt.want)
			}
		})
	}
}

// TestDryRun does nothing and says all.
func TestDryRun(t *testing.T) {
	w := newFleet(t)
	before := git(t, w.options.Dir, "for-each-ref")
	w.options.DryRun = true
	w.options.Build = nil
	r := w.release(t)
	var names []string
	for _, s := range r.Steps {
		if s.State != "planned" {
			t.Errorf("step %+v in a dry run", s)
		}
		names = append(names, s.Name)
	}
	if want := []string{"system", "commit", "push", "record", "announce", "announce", "dns"}; !slices.Equal(names, want) {
		t.Errorf("planned %v; want %v", names, want)
	}
	if after := git(t, w.options.Dir, "for-each-ref"); after != before || git(t, w.first, "for-each-ref") != "" || len(w.dns.texts) > 0 {
		t.Error("a dry run changed something")
	}
	if _, err := os.Stat(w.options.Settings.Cache); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cache is there: %v", err)
	}
}

// TestTrustFiles go to branch announce, and other records stay there.
func TestTrustFiles(t *testing.T) {
	w := newFleet(t)
	w.release(t)
	work := filepath.Join(t.TempDir(), "work")
	git(t, t.TempDir(), "clone", "-q", "-b", "announce", w.first, work)
	writeFile(t, filepath.Join(work, "beta._xnode.fleet.example.org.txt"), "another record\n", 0o644)
	git(t, work, "add", "-A")
	git(t, work, "commit", "-q", "-m", "beta")
	git(t, work, "push", "-q", w.first, "announce")
	commitFile(t, w, "trust/trust.json", "{}\n")
	commitFile(t, w, "trust/trust.json.sig.Ab3dEf9h", "sig\n")
	r := w.release(t)
	w.checkNode(t, w.second, r)
	want := strings.Join([]string{"beta._xnode.fleet.example.org.txt", owner + ".txt", "trust.json", "trust.json.sig.Ab3dEf9h"}, "\n")
	for _, bare := range []string{w.first, w.second} {
		if got := git(t, bare, "ls-tree", "--name-only", "announce"); got != want {
			t.Errorf("branch announce has\n%s\nwant\n%s", got, want)
		}
	}
}

// TestTwoOperators: branches announce that went apart are joined, and nobody's
// record is lost.
func TestTwoOperators(t *testing.T) {
	w := newFleet(t)
	w.release(t)
	for i, bare := range []string{w.first, w.second} {
		work := filepath.Join(t.TempDir(), "work")
		git(t, t.TempDir(), "clone", "-q", "-b", "announce", bare, work)
		writeFile(t, filepath.Join(work, []string{"beta", "gamma"}[i]+".example.org.txt"), "a record\n", 0o644)
		git(t, work, "add", "-A")
		git(t, work, "commit", "-q", "-m", "other")
		git(t, work, "push", "-q", bare, "announce")
	}
	r := w.change(t, releasing.Refresh)
	for _, bare := range []string{w.first, w.second} {
		w.checkNode(t, bare, r)
		want := strings.Join([]string{"beta.example.org.txt", "gamma.example.org.txt", owner + ".txt"}, "\n")
		if got := git(t, bare, "ls-tree", "--name-only", "announce"); got != want {
			t.Errorf("branch announce has\n%s\nwant\n%s", got, want)
		}
	}
	if got := done(w.change(t, releasing.Resume)); got != "dns" {
		t.Errorf("the same again did %q", got)
	}
}

// TestFlake: a class that is not named is built from the repository's flake.
func TestFlake(t *testing.T) {
	w := newFleet(t)
	w.options.Systems = nil
	var built []string
	build := w.options.Build
	w.options.Build = func(ctx context.Context, word string) (releasing.Built, error) {
		built = append(built, strings.TrimPrefix(word, w.options.Dir))
		return build(ctx, testkit.ToySystem)
	}
	for _, tt := range []struct{ attribute, want string }{
		{"nixosConfigurations.edge", "#nixosConfigurations.edge.config.system.build.toplevel"},
		{"packages.x86_64-linux.edge", "#packages.x86_64-linux.edge"},
	} {
		toml := strings.Split(read(t, w, "xnode.toml"), "flake")[0]
		commitFile(t, w, "xnode.toml", toml+"flake = { x86_64-linux = \""+tt.attribute+"\" }\n")
		built = nil
		w.release(t)
		if !slices.Equal(built, []string{tt.want}) {
			t.Errorf("flake %q built %q; want %q", tt.attribute, built, tt.want)
		}
	}
}

func TestInitRefuses(t *testing.T) {
	w := newFleet(t)
	base := t.TempDir()
	good := releasing.InitOptions{Dir: filepath.Join(base, "f"), Template: template, Record: owner, Remotes: []string{"https://x.example.org/y"}, Now: w.clock}
	for _, tt := range []struct {
		name string
		set  func(*releasing.InitOptions)
		want string
	}{
		{"there already", func(o *releasing.InitOptions) { o.Dir = w.options.Dir }, "refusing to write into"},
		{"keys there", func(o *releasing.InitOptions) { o.Keys = base }, "refusing to write into"},
		{"keys inside", func(o *releasing.InitOptions) { o.Keys = o.Dir + "/keys" }, "must not lie in the repository"},
		{"record", func(o *releasing.InitOptions) { o.Record = "a b" }, "fleet.record"},
		{"quotes", func(o *releasing.InitOptions) { o.Name = "a\nb" }, "fleet.name"},
		{"cache", func(o *releasing.InitOptions) { o.Caches = []string{"ftp://x"} }, "fleet.caches"},
	} {
		o := good
		tt.set(&o)
		if _, err := releasing.Init(t.Context(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Init = %v; want %q", tt.name, err, tt.want)
		}
		if entries, err := os.ReadDir(base); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v left behind (%v)", tt.name, entries, err)
		}
	}
	o := good
	o.Name = `a "fleet" \ of mine`
	made, err := releasing.Init(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	git(t, made.Repository, "verify-commit", "HEAD")
	if out := git(t, made.Repository, "status", "--porcelain"); out != "" {
		t.Errorf("the new repository is dirty:\n%s", out)
	}
	for _, name := range []string{"announce", "git", "manifest", "trust", "cache-key"} {
		if info, err := os.Stat(filepath.Join(made.Keys, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("private key %s: %v, %v", name, info, err)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"cach = 'x'", "no key cach"},
		{"cache = 1", "incompatible types"},
		{"validity = '1m'", "validity"},
		{"validity = '999h'", "validity"},
		{"remotes = ['--upload-pack=x']", "neither a name nor a URL"},
		{"[dns]\nserver = '127.0.0.1:53'", "dns.tsig"},
		{"[dns]\nserver = 'x'\napi = 'y'", "choose one"},
		{"[dns]\napi = 'y'", "dns.api_key"},
		{"[dns]\nttl = '0s'", "dns.ttl"},
		{"[dns]\ntimeout = 'x'", "dns.timeout"},
		{"[", "publish.toml"},
	} {
		path := filepath.Join(t.TempDir(), "publish.toml")
		writeFile(t, path, tt.text+"\n", 0o644)
		if _, err := releasing.LoadSettings(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("LoadSettings(%q) = %v; want %q", tt.text, err, tt.want)
		}
	}
	if _, err := releasing.LoadSettings(filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadSettings of no file = %v", err)
	}
}

// TestFormats reads publish.toml of docs/formats.md.
func TestFormats(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "publish.toml")
	writeFile(t, path, testkit.FormatsExample(t, "publish.toml"), 0o644)
	got, err := releasing.LoadSettings(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := &releasing.Settings{
		Cache: filepath.Join(dir, "cache"), Remotes: []string{"origin"}, Validity: "168h",
		Keys: releasing.Keys{Announce: filepath.Join(dir, "announce.pub"), Git: filepath.Join(dir, "git.pub"), Cache: filepath.Join(dir, "cache-key")},
		DNS: releasing.DNS{
			Server: "192.0.2.53:53", Zone: "fleet.example.org", TSIG: filepath.Join(dir, "tsig"), TTL: "60s",
			Watch: []string{"192.0.2.53:53", "198.51.100.53:53"}, Timeout: "2m",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/formats.md, publish.toml (-page +got):\n%s", diff)
	}
}
