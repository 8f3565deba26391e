package releasing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/gitcommit"
)

const announceBranch = "refs/heads/announce"

// clone is the operator's clone. Git itself does the work: its credentials,
// ssh settings, hooks and line ends are the operator's own, and a second
// implementation would see another work tree as clean.
type clone struct{ dir string }

// git runs git in the clone and returns its output without the last line end.
func (c clone) git(ctx context.Context, stdin []byte, args ...string) (string, error) {
	return c.gitEnv(ctx, nil, stdin, args...)
}

func (c clone) gitEnv(ctx context.Context, env []string, stdin []byte, args ...string) (string, error) {
	out, err := command.Output(ctx, command.Cmd{
		Name: "git", Args: args, Dir: c.dir, Stdin: bytes.NewReader(stdin), Package: "git",
		AddEnv: append([]string{"LC_ALL=C", "GIT_TERMINAL_PROMPT=0"}, env...),
	})
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// says runs a git command whose exit code 1 means no.
func (c clone) says(ctx context.Context, args ...string) (bool, error) {
	_, err := c.git(ctx, nil, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

// openClone finds the root of the clone that dir lies in and the branch that
// is checked out.
func openClone(ctx context.Context, dir string) (c clone, branch string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return c, "", err
	}
	if _, err := os.Stat(dir); err != nil {
		return c, "", fmt.Errorf("config repository: %w", err)
	}
	root, err := clone{dir}.git(ctx, nil, "rev-parse", "--show-toplevel")
	if err != nil {
		return c, "", fmt.Errorf("%q is no clone of a config repository; make one with: xnodeos init: %w", dir, err)
	}
	c = clone{root}
	branch, err = c.git(ctx, nil, "symbolic-ref", "-q", "HEAD")
	if err != nil || !strings.HasPrefix(branch, "refs/heads/") {
		return c, "", errors.New("no branch is checked out; check one out with: git switch main")
	}
	if branch == announceBranch {
		return c, "", errors.New("the branch announce is checked out, which holds records only; check another one out with: git switch main")
	}
	return c, branch, nil
}

// checkClean refuses what is in the work tree and not in a commit. The files
// that a release writes itself are put back: a release that was cut off may
// have left them behind.
func (c clone) checkClean(ctx context.Context, generated []string, repair bool) error {
	out, err := c.git(ctx, nil, "status", "--porcelain", "-z")
	if err != nil {
		return err
	}
	var dirty, ours []string
	for entry := range strings.SplitSeq(strings.Trim(out, "\x00"), "\x00") {
		if len(entry) < 4 {
			continue
		}
		if name := entry[3:]; slices.Contains(generated, name) {
			ours = append(ours, name)
		} else {
			dirty = append(dirty, name)
		}
	}
	if len(dirty) > 0 {
		return fmt.Errorf("refusing to release: %d files are not committed (%s); commit them or put them away with: git stash -u", len(dirty), strings.Join(dirty[:min(3, len(dirty))], ", "))
	}
	if len(ours) == 0 || !repair {
		return nil
	}
	for _, name := range ours {
		if _, err := c.git(ctx, nil, "rm", "-q", "-f", "--ignore-unmatch", "--cached", "--", name); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if has, err := c.says(ctx, "cat-file", "-e", "HEAD:"+name); err == nil && has {
			if _, err := c.git(ctx, nil, "checkout", "-q", "HEAD", "--", name); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolve returns the object that a ref names, "" if there is no such ref.
func (c clone) resolve(ctx context.Context, ref string) (string, error) {
	out, err := c.git(ctx, nil, "for-each-ref", "--format=%(objectname)", ref)
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(out, "\n")
	return first, nil
}

// file reads a file of a commit, nil if there is none.
func (c clone) file(ctx context.Context, commit, name string) ([]byte, error) {
	listed, err := c.git(ctx, nil, "ls-tree", commit, "--", name)
	if err != nil || listed == "" {
		return nil, err
	}
	out, err := command.Output(ctx, command.Cmd{Name: "git", Args: []string{"cat-file", "blob", commit + ":" + name}, Dir: c.dir, Package: "git"})
	if err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	return out, nil
}

// commitSpec is a commit to make.
type commitSpec struct {
	base    string // tree-ish to start from, "" for an empty tree
	parents []string
	files   map[string][]byte // written over base
	message string
	when    time.Time
}

// makeCommit writes a commit with its tree and files into the clone's objects;
// no ref, no work tree. signer nil makes an unsigned one.
func (c clone) makeCommit(ctx context.Context, spec commitSpec, signer gitcommit.Signer) (string, error) {
	tree, err := c.makeTree(ctx, spec)
	if err != nil {
		return "", err
	}
	made := gitcommit.Commit{Tree: tree, Parents: spec.parents, Message: spec.message}
	for kind, into := range map[string]*gitcommit.Person{"AUTHOR": &made.Author, "COMMITTER": &made.Committer} {
		ident, err := c.gitEnv(ctx, []string{fmt.Sprintf("GIT_%s_DATE=@%d +0000", kind, spec.when.Unix())}, nil, "var", "GIT_"+kind+"_IDENT")
		if err != nil {
			return "", fmt.Errorf("who commits? set it with: git config user.name and git config user.email: %w", err)
		}
		if *into, err = gitcommit.ParsePerson(ident); err != nil {
			return "", err
		}
	}
	raw, err := gitcommit.Encode(ctx, made, signer)
	if err != nil {
		return "", err
	}
	id, err := c.git(ctx, raw, "hash-object", "-t", "commit", "-w", "--stdin")
	if err == nil && id != gitcommit.ID(raw) {
		err = fmt.Errorf("git keeps the commit as %s, it is %s; want a repository with git's default object format (SHA-1)", id, gitcommit.ID(raw))
	}
	return id, err
}

// makeTree builds a tree in an index of its own.
func (c clone) makeTree(ctx context.Context, spec commitSpec) (string, error) {
	temp, err := os.MkdirTemp("", "xnodeos-index-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	env := []string{"GIT_INDEX_FILE=" + filepath.Join(temp, "index")}
	read := []string{"read-tree", "--empty"}
	if spec.base != "" {
		read = []string{"read-tree", spec.base}
	}
	if _, err := c.gitEnv(ctx, env, nil, read...); err != nil {
		return "", err
	}
	for name, data := range spec.files {
		blob, err := c.git(ctx, data, "hash-object", "-w", "--stdin")
		if err != nil {
			return "", err
		}
		if _, err := c.gitEnv(ctx, env, nil, "update-index", "--add", "--cacheinfo", "100644,"+blob+","+name); err != nil {
			return "", err
		}
	}
	return c.gitEnv(ctx, env, nil, "write-tree")
}

// remoteRef asks a remote what one of its refs names, "" if there is none.
func (c clone) remoteRef(ctx context.Context, remote, ref string) (string, error) {
	out, err := c.git(ctx, nil, "ls-remote", "--", remote, ref)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && name == ref {
			return id, nil
		}
	}
	return "", nil
}
