package imagebuild

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/klauspost/compress/zstd"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/kmod"
)

// initrdDirs are the mount points that the first stage finds.
var initrdDirs = []string{"dev", "proc", "sys", "run", "newroot", "medium", "etc"}

// Device numbers of Linux's Documentation/admin-guide/devices.txt. The kernel
// opens /dev/console for PID 1 before anything is mounted.
const (
	charDevice = 0o020000
	consoleDev = charDevice | 0o600
	nullDev    = charDevice | 0o666
)

// writeInitrd makes the initramfs without node config: one zstd frame of one
// cpio archive. It is the same for every node of a system.
func writeInitrd(ctx context.Context, in Inputs) ([]byte, error) {
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	for _, dir := range initrdDirs {
		if err := w.Dir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := w.Device("dev/console", consoleDev, 5, 1); err != nil {
		return nil, err
	}
	if err := w.Device("dev/null", nullDev, 1, 3); err != nil {
		return nil, err
	}
	if err := addFile(w, "init", 0o755, in.Init.Data); err != nil {
		return nil, err
	}
	firmware, err := addModules(ctx, w, in.Modules)
	if err != nil {
		return nil, err
	}
	if err := addFirmware(w, in.Modules.Firmware, firmware); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return compressInitrd(archive.Bytes())
}

// addModules writes the modules decompressed: the frame around them packs
// better than each by itself, and the first stage loads them faster. It
// returns the firmware files that they ask for.
func addModules(ctx context.Context, w *cpio.Writer, set ModuleSet) ([]string, error) {
	dir := "lib/modules/" + set.Version
	var firmware []string
	for _, m := range set.Modules {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		packed, err := fs.ReadFile(set.FS, m.Path)
		if err != nil {
			return nil, fmt.Errorf("module %s of %s: %w", m.Name, set.Source, err)
		}
		ko, err := kmod.Decompress(m.Path, packed)
		if err != nil {
			return nil, fmt.Errorf("module %s of %s: %w", m.Name, set.Source, err)
		}
		wanted, err := kmod.Firmware(ko)
		if err != nil {
			return nil, fmt.Errorf("module %s of %s: %w", m.Name, set.Source, err)
		}
		firmware = append(firmware, wanted...)
		if err := addFile(w, path.Join(dir, m.UncompressedPath()), 0o644, ko); err != nil {
			return nil, err
		}
	}
	tables := set.Index.WriteSubset(set.Modules)
	names := make([]string, 0, len(tables))
	for name := range tables {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := addFile(w, path.Join(dir, name), 0o644, tables[name]); err != nil {
			return nil, err
		}
	}
	slices.Sort(firmware)
	return slices.Compact(firmware), nil
}

// addFirmware writes the firmware that the system has of what its modules
// name. A missing file is no error: most drivers name files for every model
// they know, and distributions ship some of them.
func addFirmware(w *cpio.Writer, have fs.FS, wanted []string) error {
	if have == nil {
		return nil
	}
	for _, name := range wanted {
		if !fs.ValidPath(name) {
			continue
		}
		for _, suffix := range []string{"", ".xz", ".zst"} {
			data, err := fs.ReadFile(have, name+suffix)
			if err != nil {
				if os.IsNotExist(err) {
					continue
				}
				return fmt.Errorf("firmware %q: %w", name, err)
			}
			// Kept as it is: the kernel unpacks what its own
			// configuration can (CONFIG_FW_LOADER_COMPRESS).
			if err := addFile(w, "lib/firmware/"+name+suffix, 0o644, data); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

func addFile(w *cpio.Writer, name string, perm uint32, data []byte) error {
	return w.File(name, perm, int64(len(data)), bytes.NewReader(data))
}

// compressInitrd uses one frame and one goroutine, so that the bytes do not
// depend on the machine. The kernel's decoder wants a window (a single-segment
// frame would make it allocate the whole size) and no dictionary.
func compressInitrd(plain []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1),
		zstd.WithSingleSegment(false),
		zstd.WithWindowSize(8<<20),
		zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	packed := enc.EncodeAll(plain, nil)
	// The kernel goes on to the next archive at a multiple of four.
	for len(packed)%4 != 0 {
		packed = append(packed, 0)
	}
	return packed, nil
}
