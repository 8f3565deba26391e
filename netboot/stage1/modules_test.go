package stage1

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/kmod"
)

// kernel is a kernel's modules: what each needs, and what each device asks for.
type kernel struct {
	needs map[string][]string
	alias map[string][]string
	fails map[string]error

	mu     sync.Mutex
	loaded []string
}

func (k *kernel) Resolve(names ...string) ([]kmod.Module, error) {
	var list []kmod.Module
	for _, name := range names {
		deps, ok := k.needs[name]
		if !ok {
			return nil, &kmod.UnknownError{Name: name}
		}
		for _, d := range append(slices.Clone(deps), name) {
			list = append(list, kmod.Module{Name: d, Path: d + ".ko"})
		}
	}
	return list, nil
}

func (k *kernel) Match(alias string) []string { return k.alias[alias] }

func (k *kernel) load(m kmod.Module) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loaded = append(k.loaded, m.Name)
	return k.fails[m.Name]
}

func (k *kernel) seen() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.loaded)
}

func (k *kernel) modules(out *buffer) *Modules {
	con := NewConsole(fixedClock)
	con.Attach(out)
	return NewModules(k, k.load, NewStopwatch(fixedClock), con)
}

func TestModulesLoadOnce(t *testing.T) {
	t.Parallel()
	k := &kernel{needs: map[string][]string{"sr_mod": {"scsi_mod", "cdrom"}, "sd_mod": {"scsi_mod"}}}
	m := k.modules(&buffer{})
	for range 2 {
		if err := m.Load("sr_mod"); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Load("sd_mod"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"scsi_mod", "cdrom", "sr_mod", "sd_mod"}, k.seen()); diff != "" {
		t.Errorf("loaded, -want +got:\n%s", diff)
	}
	var unknown *kmod.UnknownError
	if err := m.Load("nosuch"); !errors.As(err, &unknown) {
		t.Errorf("Load of an unknown module = %v; want an *UnknownError", err)
	}
}

func TestModulesFailure(t *testing.T) {
	t.Parallel()
	k := &kernel{
		needs: map[string][]string{"isofs": nil, "odd": nil, "nodev": nil},
		alias: map[string][]string{"pci:1": {"odd"}, "pci:2": {"nodev"}},
		fails: map[string]error{"isofs": syscall.ENOENT, "odd": syscall.EIO, "nodev": syscall.ENODEV},
	}
	var out buffer
	m := k.modules(&out)
	for range 2 { // the second time the failure is remembered
		if err := m.Load("isofs"); !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "isofs") {
			t.Errorf("Load of a broken module = %v; want ENOENT and its name", err)
		}
	}
	m.Alias("pci:1")
	m.Alias("pci:2")
	m.Alias("pci:1")
	m.con.Flush(time.Minute)
	if got := out.String(); strings.Count(got, "odd") != 1 || !strings.Contains(got, "pci:1") || strings.Contains(got, "nodev") {
		t.Errorf("console got %q; want the failed driver once, and nothing of the one without a device", got)
	}
	if got := m.Loaded(); len(got) != 0 {
		t.Errorf("Loaded() = %q; want none", got)
	}
}

func TestDevicesOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const net, ide, stick, cd = "pci:v8086bc02sc00i00", "pci:v8086bc01sc01i80", "usb:v1ic08", "scsi:t-0x05"
		k := &kernel{
			needs: map[string][]string{"e1000": nil, "ata_piix": {"libata"}, "usb_storage": nil, "sr_mod": {"cdrom"}, "isofs": nil},
			alias: map[string][]string{net: {"e1000"}, ide: {"ata_piix"}, stick: {"usb_storage"}, cd: {"sr_mod"}},
		}
		sys := tree(map[string]string{
			"bus/pci/devices/a/modalias": net, "bus/pci/devices/b/modalias": ide, "bus/usb/devices/c/modalias": stick,
			"bus/usb/devices/usb1/bDeviceClass": "09",
		})
		start := time.Now()
		clock := func() time.Duration { return time.Since(start) + time.Second }
		events := make(chan Uevent, 8)
		// What a driver finds comes in front of what is left.
		load := func(m kmod.Module) error {
			if m.Name == "ata_piix" {
				events <- Uevent{Action: "add", Subsystem: "scsi", Modalias: cd}
				events <- Uevent{Action: "remove", Subsystem: "scsi", Modalias: "scsi:never"}
			}
			return k.load(m)
		}
		modules := NewModules(k, load, NewStopwatch(clock), NewConsole(clock))
		d := NewDevices(sys, modules, events, clock, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			d.Run(ctx, "isofs")
			close(ended)
		}()
		synctest.Wait()
		want := []string{"libata", "ata_piix", "cdrom", "sr_mod", "isofs", "usb_storage", "e1000"}
		if diff := cmp.Diff(want, k.seen()); diff != "" {
			t.Errorf("loaded, -want +got:\n%s", diff)
		}
		if d.Settled() {
			t.Error("settled at once; want a quiet time first")
		}
		time.Sleep(2 * settleTime)
		synctest.Wait()
		if d.Settled() {
			t.Error("settled while a hub may still find a stick")
		}
		time.Sleep(settleUSB)
		if !d.Settled() {
			t.Error("not settled after a quiet time")
		}
		changed := d.Changed.C()
		events <- Uevent{Action: "add", Subsystem: "block", DevName: "sda"}
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("a new block device is not told")
		}
		cancel()
		<-ended
	})
}

// Without the kernel's events new devices are found by looking again.
func TestDevicesPolling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{needs: map[string][]string{"late": nil}, alias: map[string][]string{"pci:late": {"late"}}}
		var mu sync.Mutex
		sys := tree(nil)
		start := time.Now()
		clock := func() time.Duration { return time.Since(start) }
		d := NewDevices(lockedFS{sys, &mu}, NewModules(k, k.load, NewStopwatch(clock), NewConsole(clock)), nil, clock, 4)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go d.Run(ctx)
		time.Sleep(time.Second)
		mu.Lock()
		sys["bus/pci/devices/x/modalias"] = &fstest.MapFile{Data: []byte("pci:late\n")}
		mu.Unlock()
		time.Sleep(2 * rescanMost)
		if diff := cmp.Diff([]string{"late"}, k.seen()); diff != "" {
			t.Errorf("loaded, -want +got:\n%s", diff)
		}
		cancel()
		synctest.Wait()
	})
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		iso := make([]byte, 18*2048)
		copy(iso[16*2048:], "\x01CD001\x01")
		copy(iso[16*2048+40:], MediumLabel)
		fat := fatImage()
		copy(fat[43:], "xnode-cfg  ")
		other := fatImage()
		copy(other[43:], "EFI        ")
		images := map[string][]byte{"/dev/sr0": iso, "/dev/vda": other, "/dev/vda1": fat}
		opens := map[string]int{}
		var mu sync.Mutex
		open := func(device string) (blockReader, error) {
			mu.Lock()
			defer mu.Unlock()
			if opens[device]++; device == "/dev/sr0" && opens[device] < 3 {
				return nil, fmt.Errorf("open %q: no medium found", device)
			}
			return memoryDevice{strings.NewReader(string(images[device]))}, nil
		}
		sys := tree(map[string]string{"class/block/sr0/size": "72", "class/block/sr1/size": "0",
			"class/block/vda/size": "9", "class/block/vda1/size": "8"})
		start := time.Now()
		clock := func() time.Duration { return time.Since(start) + time.Second }
		v := NewVolumes(sys, open, clock, NewConsole(clock))
		ctx, cancel := context.WithCancel(t.Context())
		go v.Run(ctx, newSignal())
		synctest.Wait()
		if !v.Idle() {
			t.Error("not idle although every device was looked at")
		}
		if diff := cmp.Diff([]Volume{{"/dev/vda1", VolumeFAT, "xnode-cfg"}}, v.Of(VolumeFAT)); diff != "" {
			t.Errorf("FAT volumes, -want +got:\n%s", diff)
		}
		if got := v.Of(VolumeISO); got != nil {
			t.Errorf("ISO volumes = %v before the medium can be read", got)
		}
		if got := strings.Join(v.Report(), "\n"); !strings.Contains(got, "/dev/sr0") || !strings.Contains(got, "no medium found") {
			t.Errorf("Report() = %q; want what the drive said", got)
		}
		time.Sleep(10 * time.Second)
		if diff := cmp.Diff([]Volume{{"/dev/sr0", VolumeISO, MediumLabel}}, v.Of(VolumeISO)); diff != "" {
			t.Errorf("ISO volumes, -want +got:\n%s", diff)
		}
		if diff := cmp.Diff([]string{"/dev/vda1: no volume XNODEOS", "/dev/vda: no volume XNODEOS"}, v.Report()); diff != "" {
			t.Errorf("Report, -want +got:\n%s", diff)
		}
		cancel()
		synctest.Wait()
		if diff := cmp.Diff(map[string]int{"/dev/sr0": 3, "/dev/vda": 1, "/dev/vda1": 1}, opens); diff != "" {
			t.Errorf("opened, -want +got:\n%s", diff)
		}
	})
}

type memoryDevice struct{ *strings.Reader }

func (memoryDevice) Close() error { return nil }
