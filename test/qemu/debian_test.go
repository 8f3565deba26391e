package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/vm"
)

// debianRecipe makes a Debian as somebody rents it: its own kernel, systemd,
// udev, an ssh server with keys of its own, DHCP by systemd-networkd. Drivers
// that no virtual machine has are left out, and its initramfs is told what it
// needs, so that it boots in seconds. mke2fs is run inside of mmdebstrap's
// namespace, so that no root is needed, and sees the tree by a bind mount: /proc
// is mounted in the tree itself. $OUT is a folder that all may write to.
const debianRecipe = `
set -e
exec mmdebstrap --variant=minbase --include=linux-image-amd64,systemd,systemd-sysv,udev,openssh-server,iproute2,zstd \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/lib/modules/*/kernel/sound/*' --dpkgopt='path-exclude=/lib/modules/*/kernel/arch/x86/kvm/*' \
  --dpkgopt='path-exclude=/lib/modules/*/kernel/net/wireless/*' --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/ata/*' \
  --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/gpu/*' --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/media/*' \
  --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/net/wireless/*' --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/net/ethernet/*' \
  --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/infiniband/*' --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/scsi/*' \
  --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/staging/*' --dpkgopt='path-exclude=/lib/modules/*/kernel/drivers/iio/*' \
  --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list > "$1/etc/initramfs-tools/conf.d/qemu"' \
  --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" > "$1/etc/initramfs-tools/modules"' \
  --customize-hook='echo debian-guest > "$1/etc/hostname"' \
  --customize-hook='echo "/dev/vda / ext4 rw 0 1" > "$1/etc/fstab"' \
  --customize-hook='printf "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n[DHCPv4]\nClientIdentifier=mac\n" > "$1/etc/systemd/network/all.network"' \
  --customize-hook='chroot "$1" systemctl enable systemd-networkd && chroot "$1" systemctl mask e2scrub_reap.service' \
  --customize-hook='mkdir -p -m 700 "$1/root/.ssh" && cat "$OUT/login.pub" > "$1/root/.ssh/authorized_keys"' \
  --customize-hook='cat "$1"/boot/vmlinuz-* > "$OUT/vmlinuz" && cat "$1"/boot/initrd.img-* > "$OUT/initrd" && cat "$1/etc/ssh/ssh_host_ed25519_key.pub" > "$OUT/host.pub"' \
  --customize-hook='mkdir "$OUT/root" && mount --bind "$1" "$OUT/root" && mke2fs -q -t ext4 -d "$OUT/root" "$OUT/disk.ext4" 1200M && umount "$OUT/root" && rmdir "$OUT/root"' \
  bookworm /dev/null
`

// debianGuest returns the machine of a Debian guest and how to log in. Its disk
// is made once and kept in the cache folder; what a guest writes is thrown away.
func debianGuest(t *testing.T) (vm.Machine, *nodeConfig) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(debianRecipe))
	dir := filepath.Join(cache, "xnodeos", "debian-guest-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err != nil {
		makeDebian(t, dir)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("%v; remove %s and run the test again", err, dir)
		}
		return data
	}
	login, err := ssh.ParsePrivateKey(read("login"))
	if err != nil {
		t.Fatal(err)
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey(read("host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	m := vm.Machine{
		Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd"),
		Append: "root=/dev/vda rw console=ttyS0 no_timer_check",
		Drives: []vm.Drive{{File: filepath.Join(dir, "disk.ext4"), As: vm.Disk, Snapshot: true}},
	}
	return m, &nodeConfig{hostname: "debian-guest", login: login, host: host}
}

func makeDebian(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	// In a user namespace the hooks write as another user, for whom the home
	// folder is closed.
	work, err := os.MkdirTemp("", "xnodeos-debian-guest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o777); err != nil {
		t.Fatal(err)
	}
	signer, private := newKey(t)
	for name, data := range map[string][]byte{"login": []byte(private), "login.pub": ssh.MarshalAuthorizedKey(signer.PublicKey())} {
		if err := os.WriteFile(filepath.Join(work, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(dir + ".new"); err != nil { // of a run that was cut
		t.Fatal(err)
	}
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", debianRecipe)
	cmd.Env = append(os.Environ(), "OUT="+work, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(string(out), "\n")
		t.Fatalf("make a Debian guest: %v; run scripts/setup\n%s", err, strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
	t.Logf("Debian guest made in %.0f s", time.Since(began).Seconds())
	// Perhaps to another file system, with the holes of the disk; and whole or
	// not at all.
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", "--sparse=always", work, dir+".new").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Rename(dir+".new", dir); err != nil {
		t.Fatal(err)
	}
}
