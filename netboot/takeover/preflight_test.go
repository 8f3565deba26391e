package takeover

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// soundFacts are those of a machine on which everything is as it should be.
func soundFacts() Facts {
	return Facts{
		Process: Process{EUID: 0, Machine: "x86_64", Release: "6.1.0"}, SysBoot: true, KexecLoaded: "0", LoadDisabled: "0",
		Lockdown: "none", MemTotal: 2 << 30, MemAvailable: 1 << 30,
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*Facts)
		check  string
		want   Status
		text   string
	}{
		{"sound", func(*Facts) {}, "", OK, ""},
		{"not root", func(f *Facts) { f.EUID = 1000 }, "root", Fail, "user 1000"},
		{"root without the capability", func(f *Facts) { f.SysBoot = false }, "root", Fail, "CAP_SYS_BOOT"},
		{"container", func(f *Facts) { f.Container = "there is a /.dockerenv" }, "container", Fail, "/.dockerenv"},
		{"Xen PV", func(f *Facts) { f.XenType, f.XenGuest = "xen", "PV" }, "xen", Fail, "paravirtual"},
		{"Xen of an old kernel", func(f *Facts) { f.XenType = "xen" }, "xen", Fail, "paravirtual"},
		{"Xen HVM", func(f *Facts) { f.XenType, f.XenGuest = "xen", "HVM" }, "xen", OK, "HVM"},
		{"other machine", func(f *Facts) { f.Machine = "aarch64" }, "architecture", Fail, "aarch64"},
		{"32-bit user space", func(f *Facts) { f.Machine = "i686" }, "architecture", Fail, "i686"},
		{"no kexec", func(f *Facts) { f.KexecLoaded = "" }, "kexec", Fail, "without kexec"},
		{"kexec off", func(f *Facts) { f.LoadDisabled = "1" }, "kexec", Fail, "kexec_load_disabled"},
		{"no sysctl", func(f *Facts) { f.LoadDisabled = "" }, "kexec", OK, ""},
		{"none left", func(f *Facts) { f.LoadLimit = "0" }, "kexec", Fail, "kexec_load_limit_reboot"},
		{"unlimited", func(f *Facts) { f.LoadLimit = "-1" }, "kexec", OK, ""},
		{"lockdown", func(f *Facts) { f.Lockdown = "integrity" }, "lockdown", Warn, "integrity"},
		{"loaded", func(f *Facts) { f.KexecLoaded = "1" }, "loaded", Warn, "replaced"},
		{"watchdog", func(f *Facts) { f.Watchdogs = []string{"watchdog0"} }, "watchdog", Warn, "watchdog0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := soundFacts()
			tc.change(&f)
			var v Verdict
			v.Status = OK
			v.add(judge(f)...)
			if v.Status != tc.want {
				t.Errorf("verdict %q; want %q", v.Status, tc.want)
			}
			for _, c := range v.Checks {
				switch {
				case c.Name == tc.check && (c.Status != tc.want || !strings.Contains(c.Text, tc.text)):
					t.Errorf("check %q: %s, %q; want %s with %q", c.Name, c.Status, c.Text, tc.want, tc.text)
				case c.Name != tc.check && c.Status != OK:
					t.Errorf("check %q: %s, %q; want ok", c.Name, c.Status, c.Text)
				case c.Status == Fail && c.Remedy == "":
					t.Errorf("check %q fails without a remedy", c.Name)
				}
			}
			if err := v.Err(); (err != nil) != (tc.want == Fail) {
				t.Errorf("Err() = %v", err)
			}
		})
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
}

const pciVirtio = "sys/devices/pci0000:00/0000:00:03.0"

func soundRoot() fstest.MapFS {
	return fstest.MapFS{
		"proc/self/ns/pid":                         link("pid:[4026531836]"),
		"proc/self/ns/user":                        link("user:[4026531837]"),
		"proc/self/status":                         file("Name:\tx\nCapEff:\t000001ffffffffff\n"),
		"proc/1/environ":                           file("HOME=/\x00TERM=linux\x00"),
		"proc/1/cgroup":                            file("0::/init.scope\n"),
		"proc/self/io":                             file("rchar: 0\n"),
		"proc/sys/kernel/kexec_load_disabled":      file("0\n"),
		"proc/meminfo":                             file("MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n"),
		"proc/cmdline":                             file("root=/dev/vda1 console=ttyS1,9600\n"),
		"sys/kernel/kexec_loaded":                  file("0\n"),
		"sys/kernel/security/lockdown":             file("[none] integrity confidentiality\n"),
		"sys/firmware/efi/systab":                  file("ACPI20=0x7fb7e014\n"),
		"sys/class/watchdog/watchdog0/state":       file("active\n"),
		"sys/class/watchdog/watchdog1/state":       file("inactive\n"),
		"sys/class/net/eth0":                       link("../../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0"),
		pciVirtio + "/virtio0/net/eth0/address":    file("52:54:00:12:34:56\n"),
		pciVirtio + "/virtio0/modalias":            file("virtio:d00000001v00001AF4\n"),
		pciVirtio + "/virtio0/driver":              link("../../../../bus/virtio/drivers/virtio_net"),
		pciVirtio + "/modalias":                    file("pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00\n"),
		"sys/bus/virtio/drivers/virtio_net/module": link("../../../../module/virtio_net"),
		"sys/module/virtio_net/initstate":          file("live\n"),
		"sys/class/net/lo/address":                 file("00:00:00:00:00:00\n"),
	}
}

func TestReadFacts(t *testing.T) {
	t.Parallel()
	got := ReadFacts(soundRoot(), Process{Machine: "x86_64"}, []string{"eth0", "lo", "none"})
	want := Facts{
		Process: Process{Machine: "x86_64"}, SysBoot: true, KexecLoaded: "0", LoadDisabled: "0", Lockdown: "none",
		MemTotal: 2 << 20, MemAvailable: 1 << 20, CountsReads: true, UEFI: true, Watchdogs: []string{"watchdog0"}, Cmdline: "root=/dev/vda1 console=ttyS1,9600",
		Cards: []Card{{"eth0", []Device{{"virtio:d00000001v00001AF4", "virtio_net", true},
			{"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "", false}}}, {Name: "lo"}, {Name: "none"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadFacts (-want +got):\n%s", diff)
	}
}

func TestContainerSigns(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(fstest.MapFS)
		want   bool
	}{
		{"machine", func(fstest.MapFS) {}, false},
		{"systemd-nspawn", func(m fstest.MapFS) { m["run/systemd/container"] = file("systemd-nspawn\n") }, true},
		{"lxc", func(m fstest.MapFS) { m["proc/1/environ"] = file("A=b\x00container=lxc\x00") }, true},
		{"docker", func(m fstest.MapFS) { m["proc/self/ns/pid"] = link("pid:[4026532281]") }, true},
		{"rootless", func(m fstest.MapFS) { m["proc/self/ns/user"] = link("user:[4026532280]") }, true},
		{"control group", func(m fstest.MapFS) { m["proc/1/cgroup"] = file("12:cpu:/docker/0123\n") }, true},
		{"docker with the host's processes", func(m fstest.MapFS) { m[".dockerenv"] = file("") }, true},
		{"machine made of a container's image", func(m fstest.MapFS) {
			m[".dockerenv"], m["proc/1/root/.dockerenv"] = file(""), file("")
		}, false},
		{"podman", func(m fstest.MapFS) { m["run/.containerenv"] = file("") }, true},
	} {
		root := soundRoot()
		tc.change(root)
		if got := ReadFacts(root, Process{}, nil).Container; (got != "") != tc.want {
			t.Errorf("%s: %q; want a sign: %t", tc.name, got, tc.want)
		}
	}
}

func TestMayBoot(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{
		"CapEff:\t0000000000400000\n": true, "CapEff:\t00000000a80425fb\n": false, "CapEff:\tjunk\n": false, "": false,
	} {
		if got := mayBoot(status); got != want {
			t.Errorf("mayBoot(%q) = %t; want %t", status, got, want)
		}
	}
}

func TestConsoleWords(t *testing.T) {
	t.Parallel()
	got := consoleWords("quiet console=tty0 console=ttyS1,9600 console=ttyS1,9600 console=null", "console=tty0 console=ttyS0,115200")
	if diff := cmp.Diff([]string{"console=ttyS1,9600"}, got); diff != "" {
		t.Errorf("consoleWords (-want +got):\n%s", diff)
	}
}

func TestCheckNetwork(t *testing.T) {
	t.Parallel()
	got := checkNetwork([]string{"ip=dhcp"}, []Loss{{"bond0: not carried", true}, {"a route", false}})
	var statuses []Status
	for _, c := range got {
		statuses = append(statuses, c.Status)
	}
	if diff := cmp.Diff([]Status{OK, Fail, Warn}, statuses); diff != "" {
		t.Errorf("checkNetwork (-want +got):\n%s", diff)
	}
}
