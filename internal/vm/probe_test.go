package vm

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whatever this host can do, Choose must answer within a few seconds, and its
// answer must be one under which a guest runs.
func TestProberAnswerHolds(t *testing.T) {
	cache := t.TempDir()
	p := Prober{CacheDir: cache, Now: time.Now}
	began := time.Now()
	got, err := p.Choose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > probeLimit+killAfter+5*time.Second {
		t.Errorf("Choose() took %v", took)
	}
	t.Logf("%s: %s", got.Accel, got.Reason)
	m := guest(t, "runs\r\n", powerOff())
	m.Accel = got.Accel
	v := start(t, m, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := v.Expect(ctx, Text("runs")); err != nil {
		t.Errorf("a guest under %s: %v", got.Accel, err)
	}
}

func TestProberBelievesAFreshVerdictOnly(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatalf("%v; run scripts/setup, which installs QEMU", err)
	}
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	p := Prober{CacheDir: t.TempDir(), Now: func() time.Time { return now }}
	key := probeKey(qemu)
	for _, tt := range []struct {
		name    string
		verdict Verdict
		want    bool
	}{
		{"good and fresh", Verdict{Accel: KVM, Key: key, At: now.Add(-23 * time.Hour)}, true},
		{"good and old", Verdict{Accel: KVM, Key: key, At: now.Add(-25 * time.Hour)}, false},
		{"bad and fresh", Verdict{Accel: TCG, Key: key, At: now.Add(-50 * time.Minute)}, true},
		{"bad and old", Verdict{Accel: TCG, Key: key, At: now.Add(-2 * time.Hour)}, false},
		{"from the future", Verdict{Accel: KVM, Key: key, At: now.Add(time.Hour)}, false},
		{"another boot", Verdict{Accel: KVM, Key: "other", At: now}, false},
		{"another word", Verdict{Accel: "xen", Key: key, At: now}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.save(tt.verdict)
			got, ok := p.load(key)
			if ok != tt.want || ok && got.Accel != tt.verdict.Accel {
				t.Errorf("load() = %+v, %v; want %v", got, ok, tt.want)
			}
		})
	}
	if err := os.WriteFile(p.file(), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := p.load(key); ok {
		t.Error("load(broken file) = true; want false")
	}
	if left, _ := filepath.Glob(filepath.Join(p.CacheDir, ".kvm-probe-*")); len(left) > 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestVerdictIsReadable(t *testing.T) {
	data, err := json.Marshal(Verdict{Accel: TCG, Reason: "r", Key: "k"})
	if err != nil || !strings.HasPrefix(string(data), `{"accel":"tcg","reason":"r","key":"k"`) {
		t.Errorf("Marshal() = %s, %v", data, err)
	}
}
