package takeover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/nodeconfig"
)

// contents is what the preflight wants to know of the new system's initrd.
type contents struct {
	unpacked int64              // bytes of all files
	modules  *kmod.Index        // what its first stage may load
	config   *nodeconfig.Config // of the image; empty if it has none
}

// readInitrd looks through all archives of an initrd.
func readInitrd(r io.Reader) (*contents, error) {
	c := &contents{config: &nodeconfig.Config{Files: map[string][]byte{}}}
	tables := memoryFS{}
	in := cpio.NewInitrd(r)
	for {
		_, archive, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := c.readArchive(archive, tables); err != nil {
			return nil, fmt.Errorf("read initrd: %w", err)
		}
	}
	var err error
	if c.modules, err = kmod.Open(tables); err != nil {
		return nil, fmt.Errorf("read initrd: %w", err)
	}
	return c, nil
}

func (c *contents) readArchive(archive *cpio.Reader, tables memoryFS) error {
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.unpacked += h.Size
		var keep func(data []byte)
		if name, ok := strings.CutPrefix(h.Name, nodeconfig.Folder+"/"); ok && nodeconfig.Known(name) {
			keep = func(data []byte) { c.config.Files[name] = data }
		}
		if ok, _ := path.Match("lib/modules/*/modules.*", h.Name); ok {
			keep = func(data []byte) { tables[path.Base(h.Name)] = data }
		}
		if keep == nil || !h.IsRegular() {
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		keep(data)
	}
}

// drives says whether the new system has a driver for a device.
func (c *contents) drives(d Device) bool {
	return len(c.modules.Match(d.Modalias)) > 0 || d.Driver != "" && c.modules.Has(d.Driver)
}

// memoryFS is a flat folder of files.
type memoryFS map[string][]byte

// Open opens a file of the folder.
func (m memoryFS) Open(name string) (fs.File, error) {
	data, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memoryFile{bytes.NewReader(data), name}, nil
}

type memoryFile struct {
	*bytes.Reader
	name string
}

func (f *memoryFile) Stat() (fs.FileInfo, error) { return memoryInfo{f}, nil }
func (f *memoryFile) Close() error               { return nil }

type memoryInfo struct{ f *memoryFile }

func (i memoryInfo) Name() string       { return i.f.name }
func (i memoryInfo) Size() int64        { return i.f.Reader.Size() }
func (i memoryInfo) Mode() fs.FileMode  { return 0o444 }
func (i memoryInfo) ModTime() time.Time { return time.Time{} }
func (i memoryInfo) IsDir() bool        { return false }
func (i memoryInfo) Sys() any           { return nil }
