package testkit

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Store paths of the toy system.
const (
	ToySystem  = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-toy-system"
	ToyKernel  = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-toy-kernel"
	ToyModules = "/nix/store/cccccccccccccccccccccccccccccccc-toy-modules"
	// ToyOther lies in the same store, and nobody refers to it.
	ToyOther = "/nix/store/dddddddddddddddddddddddddddddddd-unrelated"
)

const toyBoot = `{"org.nixos.bootspec.v1":{"system":"x86_64-linux","init":"` + ToySystem + `/init","kernel":"` + ToyKernel +
	`/bzImage","kernelParams":["quiet","loglevel=4"],"label":"Toy 1 (Linux 6.1)","toplevel":"` + ToySystem +
	`"},"org.nixos.specialisation.v1":{},"org.xnodeos.v1":{"medium":"live"}}`

// WriteToyStore makes a store below dir with one small system that keeps the
// live contract. Its kernel does not boot; everything else is as in a real one.
func WriteToyStore(dir string) error {
	modules := ToyModules + "/lib/modules/6.1.0-toy/"
	files := map[string]string{
		ToySystem + "/boot.json":     toyBoot,
		ToySystem + "/init":          "#!/bin/sh\n",
		ToySystem + "/activate":      "#!/bin/sh\n",
		ToySystem + "/nixos-version": "toy-1",
		ToySystem + "/kernel-params": "quiet loglevel=4",
		ToySystem + "/etc/fstab":     "tmpfs / tmpfs mode=0755 0 0\n",
		ToySystem + "/sw/bin/true":   "#!/bin/sh\n",
		ToyKernel + "/bzImage":       string(toyNoise(70000)),
		ToyOther + "/file":           "nobody refers to this",
		modules + "modules.dep": "kernel/fs/squashfs/squashfs.ko:\n" +
			"kernel/fs/overlayfs/overlay.ko: kernel/fs/squashfs/squashfs.ko\n",
		modules + "modules.alias":                  "alias fs-squashfs squashfs\n",
		modules + "modules.builtin":                "kernel/drivers/block/loop.ko\nkernel/fs/isofs/isofs.ko\n",
		modules + "modules.softdep":                "",
		modules + "kernel/fs/squashfs/squashfs.ko": toyModule("squashfs"),
		modules + "kernel/fs/overlayfs/overlay.ko": toyModule("overlay"),
	}
	for name, data := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(data), 0o755); err != nil { //nolint:gosec // as in a store
			return err
		}
	}
	for name, target := range map[string]string{
		ToySystem + "/kernel":         ToyKernel + "/bzImage",
		ToySystem + "/kernel-modules": ToyModules,
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// WriteToyLoaders makes a folder with files that bear the names and sizes of
// boot loaders and are none.
func WriteToyLoaders(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, data := range ToyLoaders() {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil { //nolint:gosec // not secret
			return err
		}
	}
	return nil
}

// ToyLoaders are the same files in memory.
func ToyLoaders() map[string][]byte {
	return map[string][]byte{
		"isolinux.bin":        []byte(strings.Repeat("isolinux", 100)),
		"ldlinux.c32":         []byte(strings.Repeat("ldlinux", 100)),
		"isohdpfx.bin":        []byte(strings.Repeat("m", 432)),
		"systemd-bootx64.efi": []byte(strings.Repeat("MZ boot", 100)),
	}
}

// toyNoise does not compress, so that a payload of it has several blocks.
func toyNoise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{'t', 'o', 'y'}).Read(b) // documented never to fail
	return b
}

// toyModule is an ELF file with a .modinfo section and nothing else.
func toyModule(name string) string {
	le := binary.LittleEndian
	info := "name=" + name + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	body := info + names
	b := make([]byte, 64, 512)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 1)  // relocatable
	le.PutUint16(b[18:], 62) // x86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(64+len(body))) // section headers
	le.PutUint16(b[52:], 64)                   // size of this header
	le.PutUint16(b[58:], 64)                   // size of a section header
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2) // the section with the names
	section := func(nameAt, kind uint32, at, size int) []byte {
		h := make([]byte, 64)
		le.PutUint32(h, nameAt)
		le.PutUint32(h[4:], kind)
		le.PutUint64(h[24:], uint64(at))
		le.PutUint64(h[32:], uint64(size))
		return h
	}
	b = append(b, body...)
	b = append(b, section(0, 0, 0, 0)...)
	b = append(b, section(1, 1, 64, len(info))...)
	b = append(b, section(10, 3, 64+len(info), len(names))...)
	return string(b)
}

// ToyProgram bears the headers of a static 64-bit program and does nothing.
func ToyProgram() []byte {
	le := binary.LittleEndian
	b := make([]byte, 64+56, 256)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // executable
	le.PutUint16(b[18:], 62) // x86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], 64) // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 1) // PT_LOAD
	return append(b, "a toy"...)
}
