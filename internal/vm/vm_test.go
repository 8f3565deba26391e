package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/command"
)

// limit is generous: the same guests take 0.3 s on an idle machine.
const limit = 60 * time.Second

// guest describes a machine of one boot sector.
func guest(t *testing.T, message string, then bootAction) Machine {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "guest.img")
	if err := os.WriteFile(disk, bootDisk(message, then), 0o644); err != nil {
		t.Fatal(err)
	}
	return Machine{MemoryMiB: 64, Drives: []Drive{{File: disk, As: Disk, Snapshot: true}}}
}

func start(t *testing.T, m Machine, o Options) *VM {
	t.Helper()
	o.Now = time.Now
	v, err := Start(t.Context(), m, o)
	if err != nil {
		t.Fatalf("Start() = %v; want nil (run scripts/setup, which installs QEMU)", err)
	}
	t.Cleanup(func() { v.Stop() })
	return v
}

func TestHowAMachineEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		then bootAction
		want Cause
	}{
		{"power off", powerOff(), PoweredOff},
		{"reset", resetGuest(), Reset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var raw bytes.Buffer
			var seen []string
			v := start(t, guest(t, "\x1b[2Jhello\r\n", tt.then), Options{
				SerialLog: &raw, OnLine: func(l Line) { seen = append(seen, l.Text) },
			})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			line, err := v.Expect(ctx, Text("hello"))
			if err != nil {
				t.Fatal(err)
			}
			if line.Text != "hello" || line.At <= 0 || line.At > limit {
				t.Errorf("Expect() = %+v; want the line \"hello\" and its time", line)
			}
			if got := v.Wait(); got.Cause != tt.want || got.Code != 0 {
				t.Errorf("Wait() = %+v; want cause %q", got, tt.want)
			}
			if diff := cmp.Diff([]string{"hello"}, seen); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			if got, want := raw.String(), "\x1b[2Jhello\r\n"; !strings.HasSuffix(got, want) {
				t.Errorf("raw log = %q; want it to end in %q", got, want)
			}
		})
	}
}

func TestExpectEndsWithTheGuest(t *testing.T) {
	v := start(t, guest(t, "almost\r\n", powerOff()), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := v.Expect(ctx, Text("never"))
	var fail *ExpectError
	if !errors.As(err, &fail) || fail.Exit == nil || fail.Exit.Cause != PoweredOff || fail.DiedBySignal() {
		t.Fatalf("Expect() = %v; want an ExpectError with PoweredOff", err)
	}
	if want := `wait for "never" on the serial console: the guest powered itself off after`; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error = %q; want it to begin %q", err, want)
	}
	if diff := cmp.Diff([]string{"almost"}, fail.Tail); diff != "" {
		t.Errorf("tail (-want +got):\n%s", diff)
	}
}

func TestExpectDeadlineAndStop(t *testing.T) {
	v := start(t, guest(t, "one\r\ntwo\r\nlogin: ", hangGuest()), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// A prompt has no line end and is found all the same.
	if _, err := v.Expect(ctx, Regexp(regexp.MustCompile(`^login:$`))); err != nil {
		t.Fatal(err)
	}
	which, line, err := v.ExpectFrom(ctx, 0, Text("three"), Text("two"))
	if err != nil || which != 1 || line.N != 1 {
		t.Errorf("ExpectFrom(0) = %d, %+v, %v; want pattern 1 at line 1", which, line, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err = v.ExpectFrom(short, line.N+1, Text("two"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not seen in time") {
		t.Errorf("ExpectFrom(after) = %v; want a deadline", err)
	}
	var status struct {
		Running bool `json:"running"`
	}
	if err := v.QMP(ctx, "query-status", nil, &status); err != nil || !status.Running {
		t.Errorf("QMP query-status = %+v, %v; want running", status, err)
	}
	if err := v.QMP(ctx, "no-such-command", nil, nil); err == nil || !strings.Contains(err.Error(), "CommandNotFound") {
		t.Errorf("QMP no-such-command = %v; want CommandNotFound", err)
	}
	if got := v.Stop(); got.Cause != Stopped {
		t.Errorf("Stop() = %+v; want Stopped", got)
	}
	if err := syscall.Kill(v.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("QEMU %d is still there: %v", v.PID(), err)
	}
	if err := v.QMP(ctx, "query-status", nil, nil); err == nil {
		t.Error("QMP after the end = nil; want an error")
	}
}

func TestContextEndsTheMachine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	v, err := Start(ctx, guest(t, "up\r\n", hangGuest()), Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Expect(ctx, Text("up")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if got := v.Wait(); got.Cause != Stopped {
		t.Errorf("Wait() = %+v; want Stopped", got)
	}
}

func TestSignalIsNotTheGuestsFault(t *testing.T) {
	v := start(t, guest(t, "up\r\n", hangGuest()), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := v.Expect(ctx, Text("up")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(v.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err := v.Expect(ctx, Text("never"))
	var fail *ExpectError
	if !errors.As(err, &fail) || !fail.DiedBySignal() || fail.Exit.Signal != syscall.SIGKILL {
		t.Errorf("Expect() = %v; want QEMU died by SIGKILL", err)
	}
	if !strings.Contains(err.Error(), "no fault of the guest") {
		t.Errorf("error = %q; want it to say whose fault it is not", err)
	}
}

func TestQEMURefuses(t *testing.T) {
	m := Machine{Drives: []Drive{{File: "/nonexistent/x.img", As: Disk}}}
	v := start(t, m, Options{})
	got := v.Wait()
	if got.Cause != Refused || got.Code != 1 || !strings.Contains(got.Stderr, "/nonexistent/x.img") {
		t.Errorf("Wait() = %+v; want Refused with the file's name", got)
	}
	m.QEMU = "qemu-system-of-nobody"
	var missing *command.MissingError
	if _, err := Start(t.Context(), m, Options{Now: time.Now}); !errors.As(err, &missing) ||
		!strings.Contains(err.Error(), "install the Debian package qemu-system-x86") {
		t.Errorf("Start(no QEMU) = %v; want the package named", err)
	}
	m.Board = "x"
	if _, err := Start(t.Context(), m, Options{Now: time.Now}); err == nil || !strings.Contains(err.Error(), `board is "x"`) {
		t.Errorf("Start(bad machine) = %v; want the board named", err)
	}
}

// The card's boot ROM broadcasts a DHCP request: that frame must come out of
// the wire's other end, and what we write must reach the card.
func TestWireCarriesFrames(t *testing.T) {
	mac := []byte{0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc}
	v := start(t, Machine{
		MemoryMiB: 64, Nets: []Net{{Kind: WireNet, MAC: "52:54:00:aa:bb:cc", PXE: true}},
		Extra: []string{"-boot", "n"},
	}, Options{})
	w := v.Wire(0)
	if err := w.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := w.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		isIPv4UDP := len(frame) > 42 && frame[12] == 8 && frame[13] == 0 && frame[23] == 17
		if isIPv4UDP && bytes.Equal(frame[6:12], mac) && frame[36] == 0 && frame[37] == 67 {
			break
		}
	}
	if err := w.WriteFrame(append(append(append([]byte{}, mac...), 2, 0, 0, 0, 0, 1, 8, 6), make([]byte, 46)...)); err != nil {
		t.Error(err)
	}
	v.Stop()
	if _, err := w.ReadFrame(); err == nil {
		// Frames that were already on the way may come first.
		for err == nil {
			_, err = w.ReadFrame()
		}
	}
}

func TestUEFIStartsWithThrowAwayVariables(t *testing.T) {
	ovmf, err := FindOVMF("/usr/share", "")
	if err != nil {
		t.Fatalf("FindOVMF() = %v; run scripts/setup, which installs ovmf", err)
	}
	before, err := os.ReadFile(ovmf.Vars)
	if err != nil {
		t.Fatal(err)
	}
	v := start(t, Machine{Firmware: UEFI, OVMF: ovmf, MemoryMiB: 256}, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	if _, err := v.Expect(ctx, Text("BdsDxe")); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(v.Tail(20), "\n"))
	}
	v.Stop()
	after, err := os.ReadFile(ovmf.Vars)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the template of the variables changed")
	}
}
