package gitserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/command"
)

// Repository is a bare repository and a work tree to make commits in.
type Repository struct {
	Bare, Work string
}

// Git runs git in a folder with an environment of its own and returns what it
// printed, without the last line end.
func Git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := command.Output(ctx, command.Cmd{
		Name: "git", Args: args, Dir: dir, Package: "git",
		Env: append(cleanEnv(), "GIT_AUTHOR_NAME=A U Thor", "GIT_AUTHOR_EMAIL=author@example.org",
			"GIT_COMMITTER_NAME=C O Mitter", "GIT_COMMITTER_EMAIL=committer@example.org",
			"GIT_AUTHOR_DATE=1795180800 +0000", "GIT_COMMITTER_DATE=1795180801 +0130"),
	})
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// NewRepository makes root/name.git and a work tree beside root.
func NewRepository(ctx context.Context, root, name string) (*Repository, error) {
	r := &Repository{Bare: filepath.Join(root, name+".git"), Work: filepath.Join(root, name+".work")}
	for _, step := range [][]string{
		{"init", "-q", "--bare", "-b", "main", r.Bare},
		{"init", "-q", "-b", "main", r.Work},
	} {
		if _, err := Git(ctx, root, step...); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Commit writes files into the work tree, commits everything there and returns
// the commit's id. signWith is a private ssh key file, "" for no signature.
func (r *Repository) Commit(ctx context.Context, files map[string]string, signWith string) (string, error) {
	for name, text := range files {
		path := filepath.Join(r.Work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	if _, err := Git(ctx, r.Work, "add", "-A"); err != nil {
		return "", err
	}
	args := []string{"commit", "-q", "--allow-empty", "-m", "release"}
	if signWith != "" {
		args = append([]string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + signWith}, append(args, "-S")...)
	}
	if _, err := Git(ctx, r.Work, args...); err != nil {
		return "", err
	}
	return Git(ctx, r.Work, "rev-parse", "HEAD")
}

// Push pushes a commit as a ref of the bare repository, by force.
func (r *Repository) Push(ctx context.Context, commit, ref string) error {
	_, err := Git(ctx, r.Work, "push", "-q", "--force", r.Bare, commit+":"+ref)
	return err
}

// Release commits files and pushes them as the tag xnode/<seq>.
func (r *Repository) Release(ctx context.Context, seq uint32, files map[string]string, signWith string) (string, error) {
	commit, err := r.Commit(ctx, files, signWith)
	if err != nil {
		return "", err
	}
	return commit, r.Push(ctx, commit, fmt.Sprintf("refs/tags/xnode/%d", seq))
}
