package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"xnodeos.org/internal/verity"
)

const (
	maxChunkSize = 1 << 30
	// COMMAND_LINE_SIZE of x86_64, with its NUL, less " xnode.manifest=sha256:HEX".
	maxCmdline = 2048 - 1 - 87
)

func (m *Manifest) validate() error {
	switch {
	case m.V != Version:
		return fmt.Errorf("v is %d; allowed is %d", m.V, Version)
	case !consists(m.Label, 128, isLabel):
		return fmt.Errorf("label %q; allowed are letters, digits and \"+._:-\", up to 128", m.Label)
	case !isArch(m.Arch):
		return fmt.Errorf("arch %q; want a name like x86_64-linux", m.Arch)
	case !isStorePath(m.System):
		return fmt.Errorf("system %q is not a store path", m.System)
	case m.Handover != HandoverScript && m.Handover != HandoverPrepareRoot:
		return fmt.Errorf("handover %q; allowed are %q and %q", m.Handover, HandoverScript, HandoverPrepareRoot)
	case m.Time < 0:
		return fmt.Errorf("time %d is negative", m.Time)
	}
	if err := checkClosure(m.Closure); err != nil {
		return err
	}
	if err := checkCmdline(m.Cmdline); err != nil {
		return err
	}
	for _, key := range m.Critical {
		if !knownKey(key) {
			return fmt.Errorf("critical names %q, which is no key of this version", key)
		}
	}
	if err := m.Payload.validate(); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return m.validateFiles()
}

func (m *Manifest) validateFiles() error {
	if err := m.Kernel.validate(); err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	if err := m.Initrd.validate(); err != nil {
		return fmt.Errorf("initrd: %w", err)
	}
	seen := map[string]bool{m.Payload.Name: true}
	for _, f := range []File{m.Kernel, m.Initrd} {
		if seen[f.Name] {
			return fmt.Errorf("two files are named %q", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

func (f *File) validate() error {
	if err := checkName(f.Name); err != nil {
		return err
	}
	if f.Size < 0 {
		return fmt.Errorf("%q: size %d is negative", f.Name, f.Size)
	}
	if !isHash(f.SHA256) {
		return fmt.Errorf("%q: sha256 %q is not 64 lower-case hex digits", f.Name, f.SHA256)
	}
	return nil
}

func (p *Payload) validate() error {
	f := File{p.Name, p.Size, p.SHA256}
	if err := f.validate(); err != nil {
		return err
	}
	if p.ChunkSize <= 0 || p.ChunkSize%4096 != 0 || p.ChunkSize > maxChunkSize {
		return fmt.Errorf("%q: chunk_size %d; allowed are multiples of 4096 up to %d", p.Name, p.ChunkSize, maxChunkSize)
	}
	want := (p.Size-1)/p.ChunkSize + 1
	if p.Size == 0 {
		want = 0
	}
	if int64(len(p.Chunks)) != want {
		return fmt.Errorf("%q: %d chunk hashes; %d bytes in chunks of %d need %d", p.Name, len(p.Chunks), p.Size, p.ChunkSize, want)
	}
	for i, c := range p.Chunks {
		if !isHash(c) {
			return fmt.Errorf("%q: hash %q of chunk %d is not 64 lower-case hex digits", p.Name, c, i)
		}
	}
	if p.Verity != nil {
		return p.Verity.validate(p)
	}
	return nil
}

func (v *Verity) validate(p *Payload) error {
	switch {
	case v.Algorithm != verityAlgorithm || v.BlockSize != verity.BlockSize:
		return fmt.Errorf("%q: verity with %q and blocks of %d; allowed are %q and %d", p.Name, v.Algorithm, v.BlockSize, verityAlgorithm, verity.BlockSize)
	case !isHash(v.Root) || !isHash(v.Salt):
		return fmt.Errorf("%q: root %q or salt %q of verity is not 64 lower-case hex digits", p.Name, v.Root, v.Salt)
	case v.DataBlocks < 2 || v.DataBlocks > p.Size/verity.BlockSize ||
		v.DataBlocks*verity.BlockSize+verity.Size(v.DataBlocks) != p.Size:
		return fmt.Errorf("%q: %d data blocks of verity and their tree do not make %d bytes", p.Name, v.DataBlocks, p.Size)
	}
	return nil
}

// checkName keeps names inside the folder of the manifest: they become paths
// and URLs.
func checkName(name string) error {
	if name == "" || len(name) > 255 || name == "." || name == ".." {
		return fmt.Errorf("name %q is not a file name", name)
	}
	for _, r := range name {
		if r <= ' ' || r == '/' || r == '\\' || r > '~' {
			return fmt.Errorf("name %q; allowed are printable ASCII characters without space, \"/\" and \"\\\"", name)
		}
	}
	return nil
}

func checkClosure(text string) error {
	digits, ok := strings.CutPrefix(text, "sha256-")
	raw, err := base64.StdEncoding.Strict().DecodeString(digits)
	if !ok || err != nil || len(raw) != 32 || len(digits) != 44 {
		return fmt.Errorf("closure %q is not \"sha256-\" and 44 characters of base64", text)
	}
	return nil
}

func checkCmdline(text string) error {
	if len(text) > maxCmdline {
		return fmt.Errorf("cmdline of %d bytes; with xnode.manifest= the kernel has room for %d", len(text), maxCmdline)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("cmdline %q is not UTF-8", text)
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("cmdline %q has a control character", text)
		}
	}
	if strings.Contains(text, "xnode.manifest=") {
		return errors.New("cmdline holds xnode.manifest=, which the manifest cannot know of itself")
	}
	return nil
}

// consists says whether text has 1 to limit bytes, all of which allowed takes.
func consists(text string, limit int, allowed func(byte) bool) bool {
	if text == "" || len(text) > limit {
		return false
	}
	for i := range len(text) {
		if !allowed(text[i]) {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isLabel(c byte) bool { return isAlnum(c) || strings.IndexByte("+._:-", c) >= 0 }

func isArch(text string) bool {
	cpu, ok := strings.CutSuffix(text, "-linux")
	return ok && consists(cpu, 32, func(c byte) bool { return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' })
}

// isStorePath knows a store path by its shape: 32 digits of Nix's base 32,
// which has no e, o, t and u, then a name in Nix's alphabet.
func isStorePath(text string) bool {
	entry, ok := strings.CutPrefix(text, "/nix/store/")
	hash, name, dash := strings.Cut(entry, "-")
	return ok && dash && len(hash) == 32 &&
		consists(hash, 32, func(c byte) bool { return strings.IndexByte("0123456789abcdfghijklmnpqrsvwxyz", c) >= 0 }) &&
		consists(name, 211, func(c byte) bool { return isAlnum(c) || strings.IndexByte("+._?=-", c) >= 0 }) &&
		name[0] != '.'
}

func isHash(text string) bool {
	return len(text) == 64 && consists(text, 64, func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' })
}
