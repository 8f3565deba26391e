package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/internal/command"
)

// How long the probe guest may take and how long its verdict is believed.
// Under working KVM it is done in a fraction of a second; on some nested hosts
// /dev/kvm opens and then every guest crawls or stands still.
const (
	probeLimit   = 3 * time.Second
	believeGood  = 24 * time.Hour
	believeBad   = time.Hour
	probeMessage = "XNODEOS-PROBE"
)

// Prober finds out whether KVM works by running a guest of one boot sector.
type Prober struct {
	QEMU     string // as in Machine
	CacheDir string // verdicts are kept there; empty: nowhere
	Now      func() time.Time
}

// Verdict is what a probe found.
type Verdict struct {
	Accel  Accel     `json:"accel"`
	Reason string    `json:"reason"`
	Key    string    `json:"key"` // what the verdict holds for: this boot, this QEMU
	At     time.Time `json:"at"`
}

// Choose returns KVM where a guest has proved that it works, else TCG, and the
// reason. It fails only when QEMU is missing or ctx is over.
func (p Prober) Choose(ctx context.Context) (Verdict, error) {
	m := Machine{QEMU: p.QEMU}.withDefaults()
	program, err := exec.LookPath(m.QEMU)
	if err != nil {
		return Verdict{}, &command.MissingError{Name: m.QEMU, Package: qemuPackage, Flag: "--qemu", Err: err}
	}
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return Verdict{Accel: TCG, Reason: err.Error(), At: p.Now()}, nil //nolint:nilerr // no KVM is an answer, and says why
	}
	if err := dev.Close(); err != nil {
		return Verdict{}, fmt.Errorf("probe KVM: %w", err)
	}
	key := probeKey(program)
	if v, ok := p.load(key); ok {
		return v, nil
	}
	v := Verdict{Key: key}
	v.Accel, v.Reason, err = p.probe(ctx, program)
	if err != nil {
		return Verdict{}, err
	}
	v.At = p.Now()
	p.save(v)
	return v, nil
}

func (p Prober) probe(ctx context.Context, program string) (Accel, string, error) {
	dir, err := os.MkdirTemp("", "xnodeos-probe-")
	if err != nil {
		return "", "", fmt.Errorf("probe KVM: %w", err)
	}
	defer os.RemoveAll(dir) // a few hundred bytes in the temporary folder
	disk := filepath.Join(dir, "probe.img")
	if err := os.WriteFile(disk, bootDisk(probeMessage+"\r\n", powerOff()), 0o600); err != nil {
		return "", "", fmt.Errorf("probe KVM: %w", err)
	}
	started := p.Now()
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	v, err := Start(limited, Machine{QEMU: program, Accel: KVM, MemoryMiB: 64,
		Drives: []Drive{{File: disk, As: Disk, Snapshot: true}}}, Options{Now: p.Now})
	if err != nil {
		return "", "", fmt.Errorf("probe KVM: %w", err)
	}
	_, err = v.Expect(limited, Text(probeMessage))
	v.Stop()
	switch {
	case ctx.Err() != nil:
		return "", "", fmt.Errorf("probe KVM: %w", ctx.Err())
	case err == nil:
		return KVM, fmt.Sprintf("a guest ran under KVM in %.1f s", p.Now().Sub(started).Seconds()), nil
	default:
		reason, _, _ := strings.Cut(err.Error(), "\n")
		return TCG, "a guest did not run under KVM: " + reason, nil
	}
}

// probeKey changes with each boot of the host and each other QEMU.
func probeKey(program string) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = []byte("unknown boot")
	}
	key := strings.TrimSpace(string(boot)) + " " + program
	if info, err := os.Stat(program); err == nil {
		key += fmt.Sprintf(" %d %d", info.Size(), info.ModTime().Unix())
	}
	return key
}

func (p Prober) file() string { return filepath.Join(p.CacheDir, "kvm-probe.json") }

// load returns a verdict that is still to be believed. Whatever is wrong with
// the file, the answer is to probe again.
func (p Prober) load(key string) (Verdict, bool) {
	if p.CacheDir == "" {
		return Verdict{}, false
	}
	data, err := os.ReadFile(p.file())
	if err != nil {
		return Verdict{}, false
	}
	var v Verdict
	if err := json.Unmarshal(data, &v); err != nil || v.Key != key {
		return Verdict{}, false
	}
	limit := believeBad
	switch v.Accel {
	case KVM:
		limit = believeGood
	case TCG:
	default:
		return Verdict{}, false
	}
	age := p.Now().Sub(v.At)
	return v, age >= 0 && age < limit
}

// save keeps v for later runs. A cache that cannot be written only costs the
// next run a probe.
func (p Prober) save(v Verdict) {
	if p.CacheDir == "" {
		return
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return
	}
	if err := os.MkdirAll(p.CacheDir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return
	}
	tmp, err := os.CreateTemp(p.CacheDir, ".kvm-probe-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(append(data, '\n'))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), p.file())
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
}
