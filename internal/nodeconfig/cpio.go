package nodeconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"xnodeos.org/internal/cpio"
)

// DamagedError says that a file of a packed node config is not what its list
// of hashes says.
type DamagedError struct {
	Name   string // of the file
	Reason string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("node config is damaged: %q %s; write the image again", e.Name, e.Reason)
}

// WriteCPIO writes the archive that is appended to an initrd: the files below
// Folder and their hashes as SumFile. The same files give the same bytes.
func (c *Config) WriteCPIO(w io.Writer) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("pack node config: %w", err)
	}
	return c.pack(w, nodeLayer)
}

func (c *Config) pack(w io.Writer, l layer) error {
	out := cpio.NewWriter(w)
	err := out.Dir(l.folder, 0o755)
	for _, name := range c.Names() {
		perm := uint32(0o644)
		if Private(name) {
			perm = 0o600
		}
		data := c.Files[name]
		err = errors.Join(err, out.File(l.folder+"/"+name, perm, int64(len(data)), bytes.NewReader(data)))
	}
	sums := c.sums()
	err = errors.Join(err, out.File(l.sums, 0o644, int64(len(sums)), strings.NewReader(sums)), out.Close())
	if err != nil {
		return fmt.Errorf("pack node config: %w", err)
	}
	return nil
}

// sums returns the hashes of all files as sha256sum(1) writes them.
func (c *Config) sums() string {
	var b strings.Builder
	for _, name := range c.Names() {
		sum := sha256.Sum256(c.Files[name])
		fmt.Fprintf(&b, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	return b.String()
}

// ReadCPIO reads what WriteCPIO wrote, up to the end of the archive. A changed
// byte of a file is a *DamagedError that names it; any other difference from
// the canonical bytes is an error too.
func ReadCPIO(r io.Reader) (*Config, error) {
	var seen bytes.Buffer
	in := cpio.NewReader(io.TeeReader(r, &seen))
	c := &Config{Files: make(map[string][]byte)}
	sums, total := "", int64(0)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read node config: %w", err)
		}
		name, inside := strings.CutPrefix(h.Name, Folder+"/")
		if h.IsDir() && (name == "trust" || strings.HasPrefix(Folder+"/", h.Name+"/")) {
			continue
		}
		if !h.IsRegular() || h.Name != SumFile && !(inside && Known(name)) {
			return nil, fmt.Errorf("read node config: the archive holds %q, which no node config has", h.Name)
		}
		if total += h.Size; total > MaxSize+64<<10 {
			return nil, fmt.Errorf("read node config: more than the allowed %d bytes", MaxSize)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read node config: %w", err)
		}
		if h.Name == SumFile {
			sums = string(data)
		} else {
			c.Files[name] = data
		}
	}
	if err := c.check(sums, nodeLayer); err != nil {
		return nil, fmt.Errorf("read node config: %w", err)
	}
	var canonical bytes.Buffer
	if err := c.pack(&canonical, nodeLayer); err != nil {
		return nil, fmt.Errorf("read node config: %w", err)
	}
	if !bytes.Equal(canonical.Bytes(), seen.Bytes()) {
		return nil, errors.New("read node config: the files are sound, but the archive around them was changed; write the image again")
	}
	return c, nil
}

// ReadBooted reads the node config that the kernel has unpacked: root is the
// root of the initramfs. Where the initrd brought none, the config is empty.
func ReadBooted(root fs.FS) (*Config, error) { return readBooted(root, nodeLayer) }

func readBooted(root fs.FS, l layer) (*Config, error) {
	sums, err := fs.ReadFile(root, l.sums)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := fs.Stat(root, l.folder); errors.Is(err, fs.ErrNotExist) {
			return &Config{Files: map[string][]byte{}}, nil
		}
		return nil, &DamagedError{Name: l.sums, Reason: "is missing"}
	}
	if err != nil {
		return nil, fmt.Errorf("read node config: %w", err)
	}
	sub, err := fs.Sub(root, l.folder)
	if err != nil {
		return nil, fmt.Errorf("read node config: %w", err)
	}
	c, odd, err := readTree(sub, l)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read node config: %w", err)
	case len(odd) > 0:
		return nil, fmt.Errorf("read node config: %s", odd[0])
	}
	if err := c.check(string(sums), l); err != nil {
		return nil, fmt.Errorf("read node config: %w", err)
	}
	return c, nil
}

// check compares the files with their list, then each with its own rules.
func (c *Config) check(sums string, l layer) error {
	if sums == "" && len(c.Files) > 0 {
		return &DamagedError{Name: l.sums, Reason: "is missing"}
	}
	listed := make(map[string]bool)
	for line := range strings.Lines(sums) {
		line = strings.TrimSuffix(line, "\n")
		hash, name, ok := strings.Cut(line, "  ")
		if !ok || !l.known(name) || listed[name] {
			return &DamagedError{Name: l.sums, Reason: fmt.Sprintf("has the line %q", line)}
		}
		listed[name] = true
		data, ok := c.Files[name]
		if !ok {
			return &DamagedError{Name: name, Reason: "is missing"}
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hash {
			return &DamagedError{Name: name, Reason: fmt.Sprintf("has not the sha256 %s of its list", hash)}
		}
	}
	for _, name := range c.Names() {
		if !listed[name] {
			return &DamagedError{Name: name, Reason: "is not in the list of hashes"}
		}
	}
	return c.validate(l)
}
