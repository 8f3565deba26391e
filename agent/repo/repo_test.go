package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/agent/repo"
	"xnodeos.org/internal/gitcommit"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit/gitserver"
)

// world is a git repository with servers in front of it.
type world struct {
	root string
	git  *gitserver.Repository
	http *gitserver.Server
	ssh  *gitserver.Server
	opt  repo.Options // of a good client, without remotes
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	w := &world{root: t.TempDir()}
	var err error
	if w.git, err = gitserver.NewRepository(ctx, w.root, "fleet"); err != nil {
		t.Fatal(err)
	}
	key := newKey(t, "deploy")
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if w.http, err = gitserver.StartHTTP(ctx, gitserver.Options{Root: w.root}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.http.Close() })
	if w.ssh, err = gitserver.StartSSH(ctx, gitserver.Options{Root: w.root, AuthorizedKey: string(public)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.ssh.Close() })
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, w.ssh.HostKey+"\n", 0o644)
	w.opt = repo.Options{Dir: filepath.Join(t.TempDir(), "repo"), SSHKey: key, KnownHosts: known}
	return w
}

// newKey makes a key pair and returns the path of the private half.
func newKey(t *testing.T, comment string) string {
	t.Helper()
	pair, err := sshsign.GenerateKey(comment)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	write(t, path, string(pair.PrivateFile()), 0o600)
	write(t, path+".pub", string(pair.PublicFile), 0o644)
	return path
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (w *world) open(t *testing.T, remotes ...string) *repo.Repo {
	t.Helper()
	opt := w.opt
	opt.Remotes = remotes
	r, err := repo.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) release(t *testing.T, seq uint32, files map[string]string) string {
	t.Helper()
	commit, err := w.git.Release(t.Context(), seq, files, "")
	if err != nil {
		t.Fatal(err)
	}
	return commit
}

// bigText has many lines, so that git makes deltas between its versions.
func bigText(word string) string {
	return strings.Repeat("a line that many files share, again and again\n", 400) + word + "\n"
}

// TestFetch gets a release over every kind of remote, checks the repository
// with git itself, and reads it again without a network.
func TestFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	files := map[string]string{"release.json": `{"v":1}`, "nodes/a.toml": "class = \"edge\"\n"}
	for i := range 20 {
		files[fmt.Sprintf("deep/er/%d.txt", i)] = bigText(fmt.Sprint(i))
	}
	w.release(t, 1, files) // history that must not be fetched
	files["release.json"] = `{"v":1,"seq":2}`
	commit := w.release(t, 2, files)
	for _, remote := range []string{w.http.URL("fleet.git"), w.ssh.URL("fleet.git"), "file://" + w.git.Bare, w.git.Work} {
		t.Run(remote[:4], func(t *testing.T) {
			if remote == w.git.Work {
				if _, err := gitserver.Git(t.Context(), w.git.Work, "tag", "xnode/2"); err != nil {
					t.Fatal(err)
				}
			}
			w.opt.Dir = filepath.Join(t.TempDir(), "repo")
			s, err := w.open(t, remote).Fetch(t.Context(), 2, commit)
			if err != nil {
				t.Fatal(err)
			}
			checkSnapshot(t, s, files)
			if s.Remote != remote {
				t.Errorf("Remote = %q; want %q", s.Remote, remote)
			}
			for _, args := range [][]string{
				{"fsck", "--full", "--strict"}, {"verify-pack", "-v", packOf(t, s.Dir)}, {"log", "--oneline", "xnode/2"},
			} {
				out, err := gitserver.Git(t.Context(), s.Dir, args...)
				if err != nil {
					t.Errorf("git %v: %v", args, err)
				}
				if args[0] == "log" && strings.Count(out, "\n") != 0 {
					t.Errorf("git log shows more than one commit:\n%s", out)
				}
			}
			want, err := gitserver.Git(t.Context(), w.git.Bare, "cat-file", "commit", commit)
			if err != nil || want+"\n" != string(s.CommitObject()) {
				t.Errorf("CommitObject = %q; want %q (%v)", s.CommitObject(), want, err)
			}
			again, err := w.open(t).Fetch(t.Context(), 2, commit)
			if err != nil || again.Remote != "" {
				t.Errorf("Fetch without remotes = %+v, %v; want it from disk", again, err)
			}
		})
	}
}

func packOf(t *testing.T, dir string) string {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(dir, "objects/pack/*.idx"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("packs = %v, %v; want one", packs, err)
	}
	return packs[0]
}

func checkSnapshot(t *testing.T, s *repo.Snapshot, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if got, err := s.ReadFile(name, 1<<20); err != nil || string(got) != text {
			t.Errorf("ReadFile(%q) = %d bytes, %v; want %d", name, len(got), err, len(text))
		}
	}
	if _, err := s.ReadFile("release.json", 3); err == nil || !strings.Contains(err.Error(), "allowed are 3") {
		t.Errorf("ReadFile of a file that is too big = %v", err)
	}
	if _, err := s.ReadFile("no/such", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile of no file = %v; want fs.ErrNotExist", err)
	}
	for _, name := range []string{"../x", "/release.json", "", ".", "deep", "release.json/x", strings.Repeat("a/", 20) + "a"} {
		if _, err := s.ReadFile(name, 10); err == nil {
			t.Errorf("ReadFile(%q) = nil error", name)
		}
	}
}

// TestBounded: fifty releases leave no more on disk than two, and nothing half.
func TestBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.open(t, w.git.Bare)
	for seq := uint32(1); seq <= 50; seq++ {
		commit := w.release(t, seq, map[string]string{"release.json": fmt.Sprint(seq)})
		s, err := r.Fetch(t.Context(), seq, commit)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.ReadFile("release.json", 100); err != nil || string(got) != fmt.Sprint(seq) {
			t.Fatalf("release %d = %q, %v", seq, got, err)
		}
	}
	entries, size := usage(t, w.opt.Dir)
	if entries > 2 || size > 64<<10 {
		t.Errorf("after 50 releases: %d entries with %d bytes; want 2 and little", entries, size)
	}
}

func usage(t *testing.T, dir string) (entries int, size int64) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				size += info.Size()
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return len(all), size
}

// TestLeftovers: what a killed fetch left is removed, a damaged copy fetched
// again.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commit := w.release(t, 1, map[string]string{"release.json": "1"})
	s, err := w.open(t, w.git.Bare).Fetch(t.Context(), 1, commit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.opt.Dir, "fetch-1.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(strings.TrimSuffix(packOf(t, s.Dir), "idx")+"pack", 20); err != nil {
		t.Fatal(err)
	}
	s, err = w.open(t, w.git.Bare).Fetch(t.Context(), 1, commit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadFile("release.json", 10); err != nil {
		t.Error(err)
	}
	if entries, _ := usage(t, w.opt.Dir); entries != 1 {
		t.Errorf("%d entries; want the one commit", entries)
	}
}

func TestReadAnnounce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const owner = "stable._xnode.fleet.example.org"
	commit, err := w.git.Commit(t.Context(), map[string]string{
		owner + ".txt": "v=xnode1; s=1\n", "trust.json": "{}", "trust.json.sig.Ab3dEf9h": "sig", "other.txt": "no",
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.git.Push(t.Context(), commit, "refs/heads/announce"); err != nil {
		t.Fatal(err)
	}
	dead := deadURL(t)
	got, err := w.open(t, dead, w.http.URL("fleet.git"), w.ssh.URL("fleet.git")).ReadAnnounce(t.Context(), owner)
	var failed *repo.RemoteError
	if !errors.As(err, &failed) || failed.Remote != dead {
		t.Errorf("ReadAnnounce error = %v; want that of the dead remote", err)
	}
	if len(got) != 2 {
		t.Fatalf("ReadAnnounce = %d remotes; want 2", len(got))
	}
	for _, a := range got {
		if string(a.Record) != "v=xnode1; s=1" || string(a.Trust) != "{}" || len(a.Signatures) != 1 || string(a.Signatures["trust.json.sig.Ab3dEf9h"]) != "sig" {
			t.Errorf("ReadAnnounce = %q", a)
		}
	}
	if entries, _ := usage(t, w.opt.Dir); entries != 0 {
		t.Errorf("%d entries were left on disk; want none", entries)
	}
	for _, bad := range []string{"", "A.example", "a/b", "..", "a.", "-\n"} {
		if _, err := w.open(t).ReadAnnounce(t.Context(), bad); err == nil {
			t.Errorf("ReadAnnounce(%q) took the name", bad)
		}
	}
}

// deadURL is a port where nobody listens.
func deadURL(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String() + "/fleet.git"
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		opt  repo.Options
		want string
	}{
		{"relative folder", repo.Options{Dir: "repo"}, "not absolute"},
		{"no scheme", repo.Options{Dir: dir, Remotes: []string{"example.org/x"}}, "neither a URL nor a path"},
		{"scheme", repo.Options{Dir: dir, Remotes: []string{"ftp://example.org/x"}}, `scheme "ftp"`},
		{"option as host", repo.Options{Dir: dir, Remotes: []string{"ssh://-oProxyCommand=x/y"}}, "host"},
		{"query", repo.Options{Dir: dir, Remotes: []string{"https://example.org/x?y"}}, "query"},
		{"password in the error", repo.Options{Dir: dir, Remotes: []string{"ftp://u:secret@example.org/x"}}, "u:xxxxx@"},
		{"ssh password", repo.Options{Dir: dir, Remotes: []string{"ssh://u:p@example.org/x"}}, "uses? a key"},
		{"no known_hosts", repo.Options{Dir: dir, SSHKey: "k", Remotes: []string{"git@example.org:x"}}, "ssh-keyscan"},
		{"no key", repo.Options{Dir: dir, KnownHosts: "k", Remotes: []string{"git@example.org:x"}}, "ssh-keygen"},
		{"newline", repo.Options{Dir: dir, Remotes: []string{"https://example.org/\nx"}}, "control character"},
	} {
		_, err := repo.Open(tt.opt)
		want := strings.ReplaceAll(tt.want, "uses? a key", "use a key")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: Open = %v; want %q", tt.name, err, want)
		}
	}
}

// TestCancelled: the caller's cancellation is no remote's fault.
func TestCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commit := w.release(t, 1, map[string]string{"release.json": "1"})
	w.http.SetFault(gitserver.Fault{Then: gitserver.Stall})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(w.http.Requests()) == 0 {
			if ctx.Err() != nil {
				return
			}
		}
		cancel()
	}()
	_, err := w.open(t, w.http.URL("fleet.git"), w.git.Bare).Fetch(ctx, 1, commit)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch = %v; want context.Canceled", err)
	}
}

// TestCommitObject: the raw object that a fetch brings is what git signed.
func TestCommitObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t, "git")
	commit, err := w.git.Release(t.Context(), 1, map[string]string{"release.json": "1"}, key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.open(t, w.git.Bare).Fetch(t.Context(), 1, commit)
	if err != nil {
		t.Fatal(err)
	}
	if gitcommit.ID(s.CommitObject()) != commit {
		t.Error("CommitObject does not hash to the commit")
	}
	if !bytes.Contains(s.CommitObject(), []byte("\ngpgsig -----BEGIN SSH SIGNATURE-----\n")) {
		t.Error("CommitObject has lost its signature")
	}
}
