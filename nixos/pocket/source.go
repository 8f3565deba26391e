package pocket

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"xnodeos.org/internal/atomicfile"
)

//go:embed *.nix *.sh *.txt agent etc scripts units
var files embed.FS

// writeSource writes the embedded Nix files to a folder named by their
// content, so that two versions of this program do not disturb each other.
func writeSource(work string) (string, error) {
	sum := sha256.New()
	err := eachFile(func(name string, data []byte) error {
		_, err := fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read embedded files: %w", err)
	}
	folder := filepath.Join(work, "source-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for build files: %w", err)
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	temp, err := os.MkdirTemp(work, ".source-")
	if err != nil {
		return "", fmt.Errorf("make folder for build files: %w", err)
	}
	defer os.RemoveAll(temp)
	err = eachFile(func(name string, data []byte) error {
		path := filepath.Join(temp, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return atomicfile.WriteBytes(path, 0o644, data)
	})
	if err != nil {
		return "", fmt.Errorf("write build files: %w", err)
	}
	if err := os.Rename(temp, folder); err != nil {
		if _, statErr := os.Stat(folder); statErr == nil {
			return folder, nil // another process was faster
		}
		return "", fmt.Errorf("name folder of build files: %w", err)
	}
	return folder, nil
}

func eachFile(do func(name string, data []byte) error) error {
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		return do(name, data)
	})
}

// writeSet writes the table of unpacked packages beside them, under a name
// that is its content's: a build that runs keeps its own.
func writeSet(work string, table map[string]string) (string, error) {
	data, err := json.MarshalIndent(table, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write table of packages: %w", err)
	}
	data = append(data, '\n')
	sum := sha256.Sum256(data)
	path := filepath.Join(work, "set-"+hex.EncodeToString(sum[:8])+".json")
	if err := atomicfile.WriteBytes(path, 0o644, data); err != nil {
		return "", fmt.Errorf("write table of packages: %w", err)
	}
	return path, nil
}
