package takeover

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
)

func newKey(t *testing.T) (public, private string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(sshPub)), string(pem.EncodeToMemory(block))
}

// testInitrd is an initrd with a driver for virtio cards and a node config.
func testInitrd(t *testing.T, config *nodeconfig.Config) (base, full []byte) {
	t.Helper()
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	for _, f := range []struct{ name, text string }{
		{"init", "program"},
		{"lib/modules/6.1.0/modules.alias", "alias virtio:d00000001v* virtio_net\n"},
		{"lib/modules/6.1.0/modules.dep", "kernel/drivers/net/virtio_net.ko:\n"},
	} {
		if err := w.File(f.name, 0o644, int64(len(f.text)), strings.NewReader(f.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	base = bytes.Clone(archive.Bytes())
	if config != nil {
		if err := config.WriteCPIO(&archive); err != nil {
			t.Fatal(err)
		}
	}
	return base, archive.Bytes()
}

func testSource(t *testing.T, config *nodeconfig.Config) Source {
	t.Helper()
	base, full := testInitrd(t, config)
	src := Source{Kernel: []byte("kernel"), Initrd: full, Payload: bytes.Repeat([]byte("payload"), 3000)}
	of := func(name string, data []byte) manifest.File {
		return manifest.File{Name: name, Size: int64(len(data)), SHA256: strings.TrimPrefix(manifest.DigestOf(data), "sha256:")}
	}
	payload, err := manifest.HashPayload("system.squashfs", bytes.NewReader(src.Payload))
	if err != nil {
		t.Fatal(err)
	}
	system := "/nix/store/" + strings.Repeat("0", 32) + "-system"
	m := &manifest.Manifest{V: 1, Label: "test-1", Arch: "x86_64-linux", System: system, Closure: "sha256-" + strings.Repeat("A", 43) + "=",
		Handover: manifest.HandoverScript, Cmdline: "console=ttyS0", Kernel: of("vmlinuz", src.Kernel), Initrd: of("initrd", base), Payload: payload}
	if src.ManifestRaw, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	src.Cmdline = "console=ttyS0 xnode.manifest=" + manifest.DigestOf(src.ManifestRaw)
	return src
}

// fakeKernel accepts what it is told to.
type fakeKernel struct {
	refuse  map[Method]error // on Try
	broken  map[Method]error // on Load
	loaded  Method
	tried   int
	unloads int
	initrd  []byte
	cmdline string
}

func (k *fakeKernel) Try(m Method, _ []byte, _ string) error { k.tried++; return k.refuse[m] }

func (k *fakeKernel) Load(m Method, _ []byte, initrd *ramdisk, cmdline string) error {
	if err := k.broken[m]; err != nil {
		return err
	}
	k.loaded, k.cmdline, k.initrd = m, cmdline, make([]byte, initrd.size)
	for _, p := range initrd.pieces {
		copy(k.initrd[p.at:], p.data)
	}
	return nil
}

func (k *fakeKernel) Unload() error { k.unloads++; k.loaded = ""; return nil }

func plainMemory(size int) ([]byte, error) { return make([]byte, size), nil }

func testOptions(t *testing.T, root fstest.MapFS) Options {
	t.Helper()
	root["proc/meminfo"] = file("MemTotal:  2097152 kB\nMemAvailable:  1048576 kB\n")
	return Options{Root: root, Process: Process{Machine: "x86_64", Release: "6.1.0"}, Words: []string{"ip=52-54-00-12-34-56:dhcp"}, Cards: []string{"eth0"},
		Methods: []Method{FileLoad, SegmentLoad}}
}

// TestWholeWay goes from an old system to what the next one's first stage reads.
func TestWholeWay(t *testing.T) {
	t.Parallel()
	rootKey, _ := newKey(t)
	userKey, _ := newKey(t)
	imageKey, _ := newKey(t)
	hostPublic, hostPrivate := newKey(t)
	root := soundRoot()
	root["etc/passwd"] = file("root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n")
	root["root/.ssh/authorized_keys"] = file(`command="echo log in as ada" ` + userKey + "# comment\n" + rootKey + "junk\n")
	root["home/ada/.ssh/authorized_keys"] = file(userKey)
	root["etc/ssh/ssh_host_ed25519_key"] = file(hostPrivate)
	root["etc/ssh/ssh_host_rsa_key"] = file("junk")
	root["etc/machine-id"] = file("0123456789abcdef0123456789abcdef\n")
	root["proc/sys/kernel/hostname"] = file("old\n")
	image := &nodeconfig.Config{Files: map[string][]byte{"authorized_keys": []byte(imageKey), "class": []byte("edge\n")}}
	opt := testOptions(t, root)
	opt.SudoUser, opt.Append, opt.URLs = "ada", []string{"xnode.debug"}, []string{"http://192.0.2.1/x"}
	src := testSource(t, image)
	k := &fakeKernel{}
	plan, err := prepare(t.Context(), src, opt, k, plainMemory)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Verdict.Err(); err != nil {
		t.Fatal(err)
	}
	if err := plan.load(); err != nil {
		t.Fatal(err)
	}
	if k.loaded != FileLoad {
		t.Errorf("loaded by %q; want %q", k.loaded, FileLoad)
	}
	if want := src.Cmdline + " xnode.payload=http://192.0.2.1/x console=ttyS1,9600 xnode.debug"; k.cmdline != want {
		t.Errorf("command line %q; want %q", k.cmdline, want)
	}
	files := unpackInitrd(t, k.initrd)
	got, err := nodeconfig.ReadTakeover(files)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"authorized_keys": []byte(imageKey + userKey + rootKey), "hostname": []byte("old\n"), "network": []byte("ip=52-54-00-12-34-56:dhcp\n"),
		"machine-id": []byte("0123456789abcdef0123456789abcdef\n"), "ssh_host_ed25519_key": []byte(hostPrivate), "ssh_host_ed25519_key.pub": []byte(hostPublic),
	}
	if diff := cmp.Diff(want, got.Files); diff != "" {
		t.Errorf("hand-over (-want +got):\n%s", diff)
	}
	if !bytes.Equal(files[embeddedPayload].Data, src.Payload) || !bytes.Equal(files[embeddedManifest].Data, src.ManifestRaw) {
		t.Error("the payload in the initrd is not the file's")
	}
	if text, err := json.Marshal(plan.Verdict); err != nil || bytes.Contains(text, []byte(strings.Split(hostPrivate, "\n")[1])) {
		t.Errorf("the verdict shows a secret (or %v)", err)
	}
}

// unpackInitrd reads all archives of an initrd as the kernel does.
func unpackInitrd(t *testing.T, data []byte) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	in := cpio.NewInitrd(bytes.NewReader(data))
	for {
		_, archive, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		for {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			if h.IsRegular() {
				files[h.Name] = &fstest.MapFile{Data: body}
			}
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*Source, *Options, *fakeKernel)
		want   string
	}{
		{"changed kernel", func(s *Source, _ *Options, _ *fakeKernel) { s.Kernel = []byte("kernal") }, "vmlinuz has 6 bytes"},
		{"changed initrd", func(s *Source, _ *Options, _ *fakeKernel) {
			s.Initrd = bytes.Replace(s.Initrd, []byte("program"), []byte("virus!!"), 1)
		}, "initrd has"},
		{"changed payload", func(s *Source, _ *Options, _ *fakeKernel) { s.Payload = append([]byte("P"), s.Payload[1:]...) }, "system.squashfs"},
		{"longer payload", func(s *Source, _ *Options, _ *fakeKernel) { s.Payload = append(bytes.Clone(s.Payload), 0) }, "system.squashfs"},
		{"changed manifest", func(s *Source, _ *Options, _ *fakeKernel) { s.ManifestRaw = append([]byte(" "), s.ManifestRaw...) }, "does not name its manifest"},
		{"no manifest", func(s *Source, _ *Options, _ *fakeKernel) { s.ManifestRaw = []byte("{}") }, "manifest"},
		{"no payload", func(s *Source, _ *Options, _ *fakeKernel) { s.Payload = nil }, "--payload-url"},
		{"long command line", func(_ *Source, o *Options, _ *fakeKernel) { o.Append = []string{strings.Repeat("x", 3000)} }, "command line has"},
		{"no driver", func(_ *Source, o *Options, _ *fakeKernel) {
			o.Root.(fstest.MapFS)[pciVirtio+"/virtio0/modalias"] = file("pci:v00008086d0000100E")
			delete(o.Root.(fstest.MapFS), pciVirtio+"/virtio0/driver")
		}, "no driver for eth0"},
		{"bond", func(_ *Source, o *Options, _ *fakeKernel) { o.Lost = []Loss{{"bond0 is not carried yet", true}} }, "bond0"},
		{"little memory", func(_ *Source, o *Options, _ *fakeKernel) {
			o.Root.(fstest.MapFS)["proc/meminfo"] = file("MemTotal: 131072 kB\nMemAvailable: 100000 kB\n")
		}, "128 MiB of memory"},
		{"kernel says no", func(_ *Source, _ *Options, k *fakeKernel) {
			k.refuse = map[Method]error{FileLoad: errors.New("no key"), SegmentLoad: errors.New("locked down")}
		}, "kexec_file_load: no key; kexec_load: locked down"},
		{"locked down", func(_ *Source, o *Options, k *fakeKernel) {
			o.Root.(fstest.MapFS)["sys/kernel/security/lockdown"] = file("none [integrity] confidentiality\n")
			k.refuse = map[Method]error{FileLoad: explain(unix.EPERM), SegmentLoad: explain(unix.EPERM)}
		}, "switch Secure Boot off"},
		{"container", func(_ *Source, o *Options, _ *fakeKernel) {
			o.Root.(fstest.MapFS)["run/systemd/container"] = file("lxc\n")
		}, "container"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			src, opt, k := testSource(t, nil), testOptions(t, soundRoot()), &fakeKernel{}
			tc.change(&src, &opt, k)
			plan, err := prepare(t.Context(), src, opt, k, plainMemory)
			if err != nil {
				t.Fatal(err)
			}
			err = plan.load()
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "nothing was changed") {
				t.Errorf("load = %v; want a refusal with %q", err, tc.want)
			}
			if k.loaded != "" {
				t.Errorf("loaded by %q in spite of it", k.loaded)
			}
		})
	}
}

// TestPayloadOfNodeConfig: a file without a payload in it may leave it to the
// node config to say where that is; the operator's wins.
func TestPayloadOfNodeConfig(t *testing.T) {
	t.Parallel()
	files := func(url string) *nodeconfig.Config {
		return &nodeconfig.Config{Files: map[string][]byte{"payload": []byte(url + "\n")}}
	}
	for _, tc := range []struct {
		name            string
		image, operator *nodeconfig.Config
		want            []string
	}{
		{"of the image", files("http://192.0.2.1/a"), nil, []string{"http://192.0.2.1/a"}},
		{"of the operator", files("http://192.0.2.1/a"), files("http://192.0.2.1/b"), []string{"http://192.0.2.1/b"}},
	} {
		src, opt := testSource(t, tc.image), testOptions(t, soundRoot())
		src.Payload, opt.NodeConfig = nil, tc.operator
		plan, err := prepare(t.Context(), src, opt, &fakeKernel{}, plainMemory)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, plan.Verdict.Payload); diff != "" || plan.Verdict.Err() != nil {
			t.Errorf("%s: %v, payload (-want +got):\n%s", tc.name, plan.Verdict.Err(), diff)
		}
		// It is counted before it is fetched: the old system would be gone by then.
		if m := plan.Verdict.Memory; m.NewSystem < m.Image+systemFloor+21000 {
			t.Errorf("%s: the new system needs %d bytes; want at least the payload's 21000 beside image and floor", tc.name, m.NewSystem)
		}
	}
}

func TestLoadFallsBack(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		broken map[Method]error
		want   Method
		text   []string
	}{
		{"file", nil, FileLoad, nil},
		{"segments", map[Method]error{FileLoad: errors.New("one")}, SegmentLoad, nil},
		{"none", map[Method]error{FileLoad: errors.New("one"), SegmentLoad: errors.New("two")}, "", []string{"kexec_file_load: one", "kexec_load: two", "nothing was changed"}},
	} {
		k := &fakeKernel{broken: tc.broken}
		plan, err := prepare(t.Context(), testSource(t, nil), testOptions(t, soundRoot()), k, plainMemory)
		if err != nil {
			t.Fatal(err)
		}
		err = plan.load()
		if k.loaded != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%s: loaded by %q, %v; want %q", tc.name, k.loaded, err, tc.want)
		}
		for _, text := range tc.text {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v; want it to say %q", tc.name, err, text)
			}
		}
		if k.unloads != len(tc.broken) {
			t.Errorf("%s: taken back %d times; want %d", tc.name, k.unloads, len(tc.broken))
		}
	}
}

func TestPrepareEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := prepare(ctx, testSource(t, nil), testOptions(t, soundRoot()), &fakeKernel{}, plainMemory); !errors.Is(err, context.Canceled) {
		t.Errorf("prepare = %v; want that it was cancelled", err)
	}
}

func TestOperatorWins(t *testing.T) {
	t.Parallel()
	old, _ := newKey(t)
	mine, _ := newKey(t)
	root := soundRoot()
	root["root/.ssh/authorized_keys"] = file(old)
	root["proc/sys/kernel/hostname"] = file("localhost\n")
	opt := testOptions(t, root)
	opt.NodeConfig = &nodeconfig.Config{Files: map[string][]byte{"authorized_keys": []byte(mine), "hostname": []byte("new\n")}}
	k := &fakeKernel{}
	plan, err := prepare(t.Context(), testSource(t, nil), opt, k, plainMemory)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.load(); err != nil {
		t.Fatal(err)
	}
	got, err := nodeconfig.ReadTakeover(unpackInitrd(t, k.initrd))
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Files["authorized_keys"]) != mine || string(got.Files["hostname"]) != "new\n" {
		t.Errorf("hand-over: %q; want the operator's files alone", got.Files)
	}
}

func TestDiskWritable(t *testing.T) {
	t.Parallel()
	for mounts, want := range map[string]bool{
		"/dev/vda1 / ext4 rw,relatime 0 0\n": true, "/dev/vda1 / ext4 ro,relatime 0 0\ntmpfs /run tmpfs rw 0 0\n": false,
		"/dev/loop0 /x squashfs ro 0 0\n/dev/sda2 /y xfs rw 0 0\n": true, "": false,
	} {
		if got := diskWritable(mounts); got != want {
			t.Errorf("diskWritable(%q) = %t; want %t", mounts, got, want)
		}
	}
}

func FuzzJoinKeys(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHcNcb3iCdGy3WoG0EH9mOXBk/F5MtRaZtAzW0xb/qEv a@b\n", "# comment\nno-pty ssh-ed25519 AAAA\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		keys := joinKeys([]byte(a), []byte(b))
		if len(keys) == 0 {
			return
		}
		if again := joinKeys(keys); !bytes.Equal(again, keys) {
			t.Errorf("%q becomes %q when it is read again", keys, again)
		}
	})
}
