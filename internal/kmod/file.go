package kmod

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"xnodeos.org/internal/xzhead"
)

// MaxModuleSize bounds a module's file, compressed or not.
const MaxModuleSize = 64 << 20

// Decompress returns the ELF file that a module's file holds: it is one
// itself (.ko) or compressed (.ko.gz, .ko.xz, .ko.zst), as the suffix of path
// says. The result may share memory with data.
func Decompress(file string, data []byte) ([]byte, error) {
	out, err := decompress(file, data)
	if err != nil {
		return nil, fmt.Errorf("kernel module %q: %w", file, err)
	}
	if !bytes.HasPrefix(out, []byte(elf.ELFMAG)) {
		return nil, fmt.Errorf("kernel module %q: not an ELF file", file)
	}
	return out, nil
}

func decompress(file string, data []byte) ([]byte, error) {
	if len(data) > MaxModuleSize {
		return nil, errTooLarge
	}
	in := bytes.NewReader(data)
	switch ext := path.Ext(file); ext {
	case ".ko":
		return data, nil
	case ".gz":
		r, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		return readBounded(r)
	case ".xz":
		if err := xzhead.Check(data[:min(len(data), xzhead.Size)], MaxModuleSize); err != nil {
			return nil, err
		}
		r, err := xz.ReaderConfig{DictCap: lzma.MinDictCap}.NewReader(in)
		if err != nil {
			return nil, err
		}
		return readBounded(r)
	case ".zst":
		r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxModuleSize), zstd.WithDecoderMaxWindow(MaxModuleSize))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readBounded(r)
	default:
		return nil, fmt.Errorf("suffix %q; known are .ko, .ko.gz, .ko.xz and .ko.zst", ext)
	}
}

var errTooLarge = fmt.Errorf("more than the allowed %d bytes", MaxModuleSize)

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxModuleSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxModuleSize {
		return nil, errTooLarge
	}
	return data, nil
}

// Firmware returns the names of the firmware files, relative to lib/firmware,
// that the uncompressed module says it may ask for.
func Firmware(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, fmt.Errorf("kernel module: %w", err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("kernel module: no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("kernel module: read .modinfo: %w", err)
	}
	var names []string
	for field := range strings.SplitSeq(string(info), "\x00") {
		if name, ok := strings.CutPrefix(field, "firmware="); ok && name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}
