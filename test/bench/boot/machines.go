package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/vm"
)

// consoleWords are on the command line of each peer, as on that of an artifact.
const consoleWords = "quiet console=tty0 console=ttyS0,115200 panic=10 no_timer_check"

// command runs a program and gives its output in the error.
func (b *bench) command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = b.root, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// bare packs one static program as the whole of an initramfs.
func (b *bench) bare(ctx context.Context, kernel string) (vm.Machine, error) {
	program := filepath.Join(b.work, "bareinit")
	if err := b.command(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags=-s -w",
		"-o", program, "./test/bench/boot/bareinit"); err != nil {
		return vm.Machine{}, err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return vm.Machine{}, err
	}
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	err = errors.Join(
		w.Device("dev/console", cpio.TypeChar|0o600, 5, 1),
		w.File("init", 0o755, int64(len(data)), bytes.NewReader(data)),
		w.Close())
	initrd := filepath.Join(b.work, "bare.cpio")
	if err = errors.Join(err, os.WriteFile(initrd, archive.Bytes(), 0o644)); err != nil {
		return vm.Machine{}, err
	}
	return vm.Machine{Kernel: kernel, Initrd: initrd, Append: consoleWords}, nil
}

// debianPackages are the peer: what a Debian needs to come up by itself.
const debianPackages = "linux-image-amd64,initramfs-tools,systemd,systemd-sysv,udev,zstd"

// readyUnit says when multi-user.target is reached.
const readyUnit = `[Unit]
DefaultDependencies=no
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/echo DEBIAN-READY
[Install]
WantedBy=multi-user.target
`

// debian makes the peer once: mmdebstrap into a tar, that into an ext4 image.
// Neither mounts anything or installs anything on the host.
func (b *bench) debian(ctx context.Context) (vm.Machine, error) {
	final := filepath.Join(b.cache, "debian-bookworm-1")
	if _, err := os.Stat(final); errors.Is(err, fs.ErrNotExist) {
		b.say("making the Debian to compare with, once; some minutes")
		if err := b.makeDebian(ctx, final); err != nil {
			return vm.Machine{}, fmt.Errorf("make Debian: %w; is the machine set up? run scripts/setup --for bench", err)
		}
	} else if err != nil {
		return vm.Machine{}, err
	}
	return vm.Machine{
		Kernel: filepath.Join(final, "vmlinuz"), Initrd: filepath.Join(final, "initrd"),
		Append: consoleWords + " root=/dev/vda rw",
		Drives: []vm.Drive{{File: filepath.Join(final, "root.ext4"), As: vm.Disk, Snapshot: true}},
		Nets:   []vm.Net{{Kind: vm.UserNet, Isolated: true}},
	}, nil
}

// unpackScript turns root.tar into a tree with the kernel apart, and that into
// an image. It runs as root or under fakeroot: mke2fs must see the owners.
const unpackScript = `set -eu
cd "$1"
mkdir tree
tar -C tree --exclude './dev/*' -xf root.tar
cp tree/boot/vmlinuz-* vmlinuz
cp tree/boot/initrd.img-* initrd
cp bench-ready.service tree/etc/systemd/system/
mkdir -p tree/etc/systemd/system/multi-user.target.wants
ln -s ../bench-ready.service tree/etc/systemd/system/multi-user.target.wants/
mke2fs -q -t ext4 -d tree root.ext4 1G
rm -rf tree root.tar bench-ready.service
`

func (b *bench) makeDebian(ctx context.Context, final string) (err error) {
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(b.cache, ".debian-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	mode, unpack := "unshare", []string{"fakeroot", "sh"}
	if os.Geteuid() == 0 {
		mode, unpack = "root", []string{"sh"}
	}
	// Debian's tools lie in sbin, which a user's PATH may not have.
	env := []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
	if err := b.command(ctx, env, "mmdebstrap", "--quiet", "--variant=minbase", "--mode="+mode,
		"--include="+debianPackages, "bookworm", filepath.Join(work, "root.tar")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "bench-ready.service"), []byte(readyUnit), 0o644); err != nil {
		return err
	}
	if err := b.command(ctx, env, unpack[0], append(unpack[1:], "-c", unpackScript, "sh", work)...); err != nil {
		return err
	}
	return os.Rename(work, final)
}
