package bootspec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"xnodeos.org/internal/nix"
)

// Handover is how the first stage gives the machine to a system.
type Handover string

// The two shapes, as the manifest spells them, and none of them.
const (
	HandoverScript      Handover = "script"       // run init, NixOS's stage-2 script
	HandoverPrepareRoot Handover = "prepare-root" // run prepare-root in the new root, then init
	HandoverNone        Handover = ""             // needs its own initrd (system.nixos-init)
)

// System is a system in a store, read but not judged: see CheckLive.
type System struct {
	Spec
	Store         nix.Store
	Path          nix.StorePath
	NixosVersion  string
	Handover      Handover
	OverlayEtc    bool // /etc is an overlay that only the system's own initrd makes
	Fstab         []Mount
	FstabError    error  // why Fstab could not be read; CheckLive reports it
	KernelRelease string // "6.1.0-44-amd64"; "" without modules
	ModulesDir    string // logical, .../lib/modules/KernelRelease; "" without modules
	FirmwareDir   string // logical, what the kernel sees as /lib/firmware; "" without firmware
}

// Read reads the system at a logical store path. A broken or unknown
// boot.json, and parts that no system can lack, are errors.
func Read(store nix.Store, system nix.StorePath) (*System, error) {
	s := &System{Store: store, Path: system}
	if err := s.read(); err != nil {
		return nil, fmt.Errorf("read system %s: %w", system, err)
	}
	return s, nil
}

func (s *System) read() error {
	if _, err := os.Stat(s.Store.Physical(string(s.Path))); err != nil {
		return err
	}
	data, err := s.Store.ReadFile(s.part("boot.json"), maxBootJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it has no boot.json: not a NixOS system, or one built without boot.bootspec.enable; give the toplevel (config.system.build.toplevel)")
	}
	if err != nil {
		return err
	}
	spec, err := Parse(data)
	if err != nil {
		return err
	}
	s.Spec = *spec
	if s.Toplevel != string(s.Path) {
		return fmt.Errorf("its boot.json is that of another system, %s", s.Toplevel)
	}
	for _, file := range []string{s.Kernel, s.Init} {
		if err := s.regular(file); err != nil {
			return err
		}
	}
	version, err := s.Store.ReadFile(s.part("nixos-version"), 1<<10)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.NixosVersion = strings.TrimSpace(string(version))
	if s.Handover, err = s.handover(); err != nil {
		return err
	}
	if s.OverlayEtc, err = s.exists(s.part("etc-metadata-image")); err != nil {
		return err
	}
	s.readFstab()
	if err := s.findModules(); err != nil {
		return err
	}
	return s.findFirmware()
}

// part is the logical path of something in the toplevel.
func (s *System) part(name string) string { return string(s.Path) + "/" + name }

// exists follows symlinks; a dangling one is an error, not an absence.
func (s *System) exists(logical string) (bool, error) {
	_, err := s.Store.Follow(logical)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || logical == string(s.Path) {
		return err == nil, err
	}
	if found, perr := s.exists(path.Dir(logical)); perr != nil || !found {
		return false, perr
	}
	parent, perr := s.Store.Follow(path.Dir(logical))
	if perr != nil {
		return false, perr
	}
	if _, lerr := os.Lstat(s.Store.Physical(path.Join(parent, path.Base(logical)))); lerr == nil {
		return false, err // there, but leads nowhere
	}
	return false, nil
}

func (s *System) regular(logical string) error {
	f, err := s.Store.Open(logical)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", logical)
	}
	return err
}

// handover looks beside init, and at init's first two bytes only to tell a
// script from a copy of a program.
func (s *System) handover() (Handover, error) {
	found, err := s.exists(path.Join(path.Dir(s.Init), "prepare-root"))
	if err != nil {
		return HandoverNone, err
	}
	if found {
		return HandoverPrepareRoot, nil
	}
	f, err := s.Store.Open(s.Init)
	if err != nil {
		return HandoverNone, err
	}
	defer f.Close()
	begin := make([]byte, 2)
	if n, err := io.ReadFull(f, begin); err != nil && n == 0 && !errors.Is(err, io.EOF) {
		return HandoverNone, err
	}
	if bytes.Equal(begin, []byte("#!")) {
		return HandoverScript, nil
	}
	return HandoverNone, nil
}

func (s *System) readFstab() {
	data, err := s.Store.ReadFile(s.part("etc/fstab"), maxFstab)
	if err == nil {
		s.Fstab, err = ParseFstab(data)
	}
	s.FstabError = err
}

func (s *System) findModules() error {
	base := s.part("kernel-modules/lib/modules")
	found, err := s.exists(base)
	if err != nil || !found {
		return err
	}
	logical, err := s.Store.Follow(base)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.Store.Physical(logical))
	if err != nil {
		return err
	}
	var releases []string
	for _, e := range entries {
		releases = append(releases, e.Name())
	}
	sort.Strings(releases)
	switch len(releases) {
	case 0:
		return nil
	case 1:
		s.KernelRelease = releases[0]
		s.ModulesDir, err = s.Store.Follow(path.Join(logical, releases[0]))
		return err
	}
	return fmt.Errorf("kernel-modules has modules of %d kernels, %q; one system has one", len(releases), releases)
}

// findFirmware takes both spellings: NixOS's "firmware" is lib/firmware
// itself, a plain package has it below.
func (s *System) findFirmware() error {
	for _, name := range []string{"firmware/lib/firmware", "firmware"} {
		found, err := s.exists(s.part(name))
		if err != nil {
			return err
		}
		if found {
			s.FirmwareDir, err = s.Store.Follow(s.part(name))
			return err
		}
	}
	return nil
}

// ModulesFS is the folder lib/modules/KernelRelease, symlinks resolved within the store.
func (s *System) ModulesFS() fs.FS { return s.Store.FS(s.ModulesDir) }

// FirmwareFS is the folder lib/firmware, symlinks resolved within the store;
// nil if the system has no firmware.
func (s *System) FirmwareFS() fs.FS {
	if s.FirmwareDir == "" {
		return nil
	}
	return s.Store.FS(s.FirmwareDir)
}
