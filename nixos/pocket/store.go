package pocket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/nix"
)

// remedy is what helps where neither kind of store can be had.
const remedy = "run scripts/setup, which makes /nix with sudo, or have root run: install -d -o $USER /nix"

// site is where nix-build builds.
type site struct {
	store nix.Store
	args  []string // nix-build's, beside what is built
	conf  string   // lines of nix.conf
}

// commonConf is the build's whole configuration. No build users and no sandbox
// are needed: the builders are static or started from packages, see build.nix.
const commonConf = `build-users-group =
substitute = false
substituters =
max-jobs = auto
`

// chooseStore takes /nix where this user may write it or make it, else a
// private store below dir, which needs user namespaces.
func chooseStore(dir string) (site, error) {
	if canWriteNix("/nix") {
		return site{conf: commonConf + "sandbox = false\n"}, nil
	}
	if why := noUserNamespaces("/proc/sys"); why != "" {
		return site{}, fmt.Errorf("/nix cannot be written and a private store cannot be used (%s); %s", why, remedy)
	}
	return privateSite(dir)
}

// privateSite is a store below dir. The sandbox shows it to the builders at
// /nix/store; they see no folder of the host beside it.
func privateSite(dir string) (site, error) {
	// Nix refuses a store below a symlink, which a home folder may well be.
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return site{}, fmt.Errorf("make private store: %w", err)
	}
	return site{
		store: nix.Store{Dir: dir},
		args:  []string{"--store", dir},
		conf:  commonConf + "sandbox = true\nsandbox-fallback = false\nsandbox-paths =\n",
	}, nil
}

// canWriteNix says whether a store in this folder can be written, or made.
func canWriteNix(root string) bool {
	for _, dir := range []string{"store", "var/nix/db"} {
		path := filepath.Join(root, dir)
		for {
			err := unix.Access(path, unix.W_OK)
			if err == nil {
				break
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return false
			}
			path = filepath.Dir(path) // whoever may write the nearest folder may make it
		}
	}
	return true
}

// noUserNamespaces says why the kernel will not give this user namespaces, or
// nothing if it looks as if it would.
func noUserNamespaces(proc string) string {
	for name, closed := range map[string]string{
		"kernel/unprivileged_userns_clone":             "0",
		"user/max_user_namespaces":                     "0",
		"kernel/apparmor_restrict_unprivileged_userns": "1",
	} {
		data, err := os.ReadFile(filepath.Join(proc, name))
		if err == nil && strings.TrimSpace(string(data)) == closed {
			return strings.ReplaceAll(name, "/", ".") + " is " + closed
		}
	}
	return ""
}

func (s site) writeConf(work string) (string, error) {
	dir := filepath.Join(work, "conf")
	if s.store.Dir != "" {
		dir = filepath.Join(work, "conf-private")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make folder for nix.conf: %w", err)
	}
	if err := atomicfile.WriteBytes(filepath.Join(dir, "nix.conf"), 0o644, []byte(s.conf)); err != nil {
		return "", fmt.Errorf("write nix.conf of the build: %w", err)
	}
	return dir, nil
}

// explain adds the remedy to failures that come from the kind of store.
func (s site) explain(err error) error {
	if s.store.Dir == "" {
		return err
	}
	text := err.Error()
	for _, sign := range []string{"cloning builder process", "user namespace", "setting up a private mount namespace", "Operation not permitted"} {
		if strings.Contains(text, sign) {
			return fmt.Errorf("build in the private store %q: %w; this machine does not let this user have namespaces: %s", s.store.Dir, err, remedy)
		}
	}
	return fmt.Errorf("build in the private store %q: %w", s.store.Dir, err)
}
