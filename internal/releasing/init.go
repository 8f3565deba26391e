package releasing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/fleet"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// InitOptions say what repository to make.
type InitOptions struct {
	Dir  string // must not be there yet
	Keys string // folder for keys and settings, likewise; "" means Dir with "-keys" behind it
	// Template is the repository to begin with; its xnode.toml is that of
	// configs/minimal.
	Template fs.FS
	Name     string // of the fleet; "" means the last part of Dir
	Record   string // owner name of the record
	Remotes  []string
	Caches   []string // URLs that nodes read; may be none yet
	Now      func() time.Time
}

// Made is what Init made. Private keys are in their files only.
type Made struct {
	Repository string            `json:"repository"`
	Keys       string            `json:"keys"`
	Settings   string            `json:"settings"`
	NodeConfig string            `json:"node_config"`
	Lines      map[string]string `json:"public"` // by role: what nodes trust
	Commit     string            `json:"commit"`
}

// keyRole is a key that Init makes.
type keyRole struct{ file, namespace string }

// keyRoles are in the order of their lines in allowed_signers.
func keyRoles() []keyRole {
	return []keyRole{
		{"announce", trust.NamespaceAnnounce}, {"git", trust.NamespaceGit},
		{"manifest", trust.NamespaceManifest}, {"trust", trust.NamespaceTrust},
	}
}

// Init makes a config repository with its first, signed commit, and beside it
// a folder with the keys, the settings of a release and the node config of the
// fleet. Both folders come whole or not at all.
func Init(ctx context.Context, o InitOptions) (_ *Made, err error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	files, err := o.files()
	if err != nil {
		return nil, err
	}
	keys, err := atomicfile.CreateDir(o.Keys, 0o700)
	if err != nil {
		return nil, err
	}
	defer keys.Abort() //nolint:errcheck // after Commit it does nothing, after an error that one counts
	repository, err := atomicfile.CreateDir(o.Dir, 0o755)
	if err != nil {
		return nil, err
	}
	defer repository.Abort() //nolint:errcheck // likewise
	made := &Made{
		Repository: o.Dir, Keys: o.Keys, Settings: filepath.Join(o.Keys, SettingsName),
		NodeConfig: filepath.Join(o.Keys, "node"), Lines: map[string]string{},
	}
	if err := writeFiles(repository.TempPath(), files); err != nil {
		return nil, err
	}
	if _, err := fleet.Load(os.DirFS(repository.TempPath())); err != nil {
		return nil, &UsageError{err} // the template is good, so it is what was asked for
	}
	if err := o.makeKeys(keys.TempPath(), made); err != nil {
		return nil, err
	}
	allowed := o.signers(made)
	files[SignersFile] = allowed
	if err := writeFiles(repository.TempPath(), map[string][]byte{SignersFile: allowed}); err != nil {
		return nil, err
	}
	if err := writeFiles(keys.TempPath(), o.private(allowed, made)); err != nil {
		return nil, err
	}
	if made.Commit, err = o.firstCommit(ctx, repository.TempPath(), keys.TempPath(), files); err != nil {
		return nil, err
	}
	if err := keys.Commit(); err != nil {
		return nil, err
	}
	return made, repository.Commit()
}

func (o *InitOptions) defaults() error {
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if o.Keys == "" {
		o.Keys = o.Dir + "-keys"
	}
	if o.Keys, err = filepath.Abs(o.Keys); err != nil {
		return err
	}
	if o.Name == "" {
		o.Name = filepath.Base(o.Dir)
	}
	if o.Keys == o.Dir || strings.HasPrefix(o.Keys, o.Dir+"/") {
		return &UsageError{errors.New("the keys must not lie in the repository; choose another folder with --keys")}
	}
	for _, dir := range []string{o.Dir, o.Keys} {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("refusing to write into %q: it is there already; choose another name", dir)
		}
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// files renders the template and reads it as a release will.
func (o *InitOptions) files() (map[string][]byte, error) {
	out := map[string][]byte{}
	err := fs.WalkDir(o.Template, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out[name], err = fs.ReadFile(o.Template, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	values := []struct{ old, new string }{
		{`name = "minimal"`, "name = " + quote(o.Name)},
		{`record = "stable._xnode.fleet.example.org"`, "record = " + quote(o.Record)},
		{`remotes = ["https://git.example.org/fleet.git"]`, "remotes = " + list(o.Remotes)},
		{`caches = ["https://cache.example.org"]`, "caches = " + list(o.Caches)},
	}
	toml := string(out[fleet.FileName])
	for _, v := range values {
		if strings.Count(toml, v.old) != 1 {
			return nil, fmt.Errorf("BUG: the template's %s lacks %s", fleet.FileName, v.old)
		}
		toml = strings.Replace(toml, v.old, v.new, 1)
	}
	out[fleet.FileName] = []byte(toml)
	return out, nil
}

// quote writes a TOML basic string.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func list(texts []string) string {
	var out []string
	for _, t := range texts {
		out = append(out, quote(t))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// makeKeys writes the key files.
func (o *InitOptions) makeKeys(dir string, made *Made) error {
	for _, role := range keyRoles() {
		comment := role.namespace + "@" + strings.TrimPrefix(o.Record, "stable._xnode.")
		pair, err := sshsign.GenerateKey(comment)
		if err != nil {
			return err
		}
		if err := writeKey(filepath.Join(dir, role.file), pair.PrivateFile(), pair.PublicFile); err != nil {
			return err
		}
		made.Lines[role.file] = trust.Line(pair.PublicKey, comment, role.namespace)
	}
	cache, err := nix.GenerateCacheKey(strings.TrimPrefix(strings.TrimSuffix(o.Record, "."), "stable._xnode.") + "-1")
	if err != nil {
		return err
	}
	made.Lines["cache"] = cache.Public()
	return writeKey(filepath.Join(dir, "cache-key"), cache.Secret(), []byte(cache.Public()+"\n"))
}

func writeKey(path string, secret, public []byte) error {
	if err := atomicfile.WriteBytes(path, 0o600, secret); err != nil {
		return err
	}
	return atomicfile.WriteBytes(path+".pub", 0o644, public)
}

func (o *InitOptions) signers(made *Made) []byte {
	var b bytes.Buffer
	b.WriteString("# Who may sign what; see README.md.\n")
	for _, role := range keyRoles() {
		b.WriteString(made.Lines[role.file] + "\n")
	}
	return b.Bytes()
}

// private are the files beside the keys.
func (o *InitOptions) private(allowed []byte, made *Made) map[string][]byte {
	var agent bytes.Buffer
	fmt.Fprintf(&agent, "name = %s\nclass = \"edge\"\n\n[git]\nremotes = %s\n\n[cache]\nurls = %s\n", quote(o.Record), list(o.Remotes), list(o.Caches))
	settings := `# What xnodeos release publishes with. Paths are relative to this file.

# The folder of the binary cache; serve it by any HTTP server.
cache = "cache"
# Pushed to, all of them; names or URLs of git. Default: fleet.remotes.
remotes = []
# How long a record counts. Refresh it before: xnodeos release --refresh
validity = "168h"

[keys] # FILE.pub means that the private half is in the ssh-agent
announce = "announce"
git = "git"
cache = "cache-key"

# DNS by RFC 2136: the file tsig has one line, KEY-NAME BASE64 (hmac-sha256).
# [dns]
# server = "192.0.2.53:53"
# zone = "fleet.example.org"
# tsig = "tsig"
# ttl = "60s"
# watch = ["192.0.2.53:53"]
`
	return map[string][]byte{
		SettingsName:                 []byte(settings),
		"node/agent.toml":            agent.Bytes(),
		"node/trust/allowed_signers": allowed,
		"node/nix-keys":              []byte(made.Lines["cache"] + "\n"),
	}
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, data := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := atomicfile.WriteBytes(file, 0o644, data); err != nil {
			return err
		}
	}
	return nil
}

// firstCommit makes the folder a git repository that signs by itself from now
// on.
func (o *InitOptions) firstCommit(ctx context.Context, dir, keys string, files map[string][]byte) (string, error) {
	c := clone{dir}
	if _, err := c.git(ctx, nil, "init", "-q", "-b", "main", "--object-format=sha1"); err != nil {
		return "", err
	}
	for _, setting := range [][2]string{
		{"gpg.format", "ssh"}, {"gpg.ssh.allowedSignersFile", SignersFile}, {"commit.gpgsign", "true"},
		{"user.signingkey", filepath.Join(o.Keys, "git.pub")},
	} {
		if _, err := c.git(ctx, nil, "config", setting[0], setting[1]); err != nil {
			return "", err
		}
	}
	signer, err := sshsign.Open(ctx, sshsign.OpenOptions{Path: filepath.Join(keys, "git")})
	if err != nil {
		return "", err
	}
	commit, err := c.makeCommit(ctx, commitSpec{files: files, message: "begin the config repository\n", when: o.Now()}, signer)
	if err != nil {
		return "", err
	}
	if _, err := c.git(ctx, nil, "update-ref", "refs/heads/main", commit); err != nil {
		return "", err
	}
	_, err = c.git(ctx, nil, "read-tree", "-u", "--reset", commit)
	return commit, err
}
