package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

const remedyNames = "a node config has only these files: "

// ReadDir reads the folder of a node config and checks every file. It takes
// ordinary files only: a symbolic link, a device or a name outside the closed
// list is an error, because what is silently left out is missed when the node
// is far away.
func ReadDir(dir string) (*Config, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("read node config: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("read node config %q: not a folder", dir)
	}
	// os.Root, because the folder may change while it is read.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read node config: %w", err)
	}
	defer root.Close()
	c, odd, err := readTree(root.FS(), nodeLayer)
	if err != nil {
		return nil, fmt.Errorf("read node config %q: %w", dir, err)
	}
	if len(odd) > 0 {
		return nil, fmt.Errorf("read node config %q: %w", dir, errors.New(odd[0]))
	}
	for _, name := range c.Names() {
		c.Files[name] = normalise(name, c.Files[name])
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("read node config %q: %w", dir, err)
	}
	return c, nil
}

// ReadVolume reads the node config from the root of a mounted FAT volume. It
// is lenient like [FromFiles]: what does not belong there is left out and
// named in the notes.
func ReadVolume(fsys fs.FS) (*Config, []string, error) {
	raw, odd, err := readTree(fsys, nodeLayer)
	if err != nil {
		return nil, nil, fmt.Errorf("read node config: %w", err)
	}
	c, notes, err := FromFiles(raw.Files)
	return c, append(odd, notes...), err
}

// FromFiles makes a node config out of files that came from outside while the
// node boots, where refusing everything for one bad file would cost the node.
// Unknown names and broken files are left out; each note says which and why.
// The only error is too many bytes.
func FromFiles(files map[string][]byte) (*Config, []string, error) {
	var notes []string
	c := &Config{Files: make(map[string][]byte)}
	total := 0
	all := Config{Files: files}
	for _, name := range all.Names() {
		if !Known(name) {
			notes = append(notes, fmt.Sprintf("%q is ignored: no file of a node config has this name", name))
			continue
		}
		total += len(files[name])
		data := normalise(name, files[name])
		if err := validateFile(name, data); err != nil {
			notes = append(notes, fmt.Sprintf("%q is ignored: %v", name, err))
			continue
		}
		c.Files[name] = data
	}
	if total > MaxSize {
		return nil, notes, fmt.Errorf("read node config: %d bytes; allowed are %d", total, MaxSize)
	}
	for _, name := range c.Names() {
		if err := c.validatePair(name); err != nil {
			notes = append(notes, fmt.Sprintf("%q is ignored: %v", name, err))
			delete(c.Files, name)
		}
	}
	return c, notes, nil
}

// readTree reads the files of the closed list below fsys. Everything else
// comes back as a sentence.
func readTree(fsys fs.FS, l layer) (*Config, []string, error) {
	c := &Config{Files: make(map[string][]byte)}
	var odd []string
	left := int64(MaxSize)
	for _, folder := range []string{".", "trust"} {
		entries, err := fs.ReadDir(fsys, folder)
		if folder != "." && (errors.Is(err, fs.ErrNotExist) || slices.Contains(odd, oddTrust)) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			name := strings.TrimPrefix(folder+"/"+e.Name(), "./")
			switch {
			case name == "trust" && e.IsDir():
				continue
			case name == "trust":
				odd = append(odd, oddTrust)
				continue
			case !l.known(name):
				odd = append(odd, fmt.Sprintf("%q does not belong there; %s%s", name, remedyNames, strings.Join(Names(), ", ")))
				continue
			case !e.Type().IsRegular():
				odd = append(odd, fmt.Sprintf("%q is not an ordinary file; put a copy of the file itself there", name))
				continue
			}
			data, err := readFile(fsys, name, left)
			if err != nil {
				return nil, nil, err
			}
			left -= int64(len(data))
			c.Files[name] = data
		}
	}
	return c, odd, nil
}

const oddTrust = `"trust" is not a folder; it holds allowed_signers, trust.json and its signatures`

func readFile(fsys fs.FS, name string, left int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, left+1))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	if int64(len(data)) > left {
		return nil, fmt.Errorf("%q: all files together have more than the allowed %d bytes", name, MaxSize)
	}
	return data, nil
}

// normalise undoes what editors on other systems do to a text file: a byte
// order mark, CR LF, no line end at the end. The programs of the booted node
// read these files with less patience.
func normalise(name string, data []byte) []byte {
	switch name {
	case "authorized_keys", "class", "hostname", "network", "nix-keys", "payload", "state", "trust/allowed_signers":
	default:
		return data
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(bytes.Clone(data), '\n')
	}
	return data
}
