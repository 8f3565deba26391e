package takeover

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	both := []Method{FileLoad, SegmentLoad}
	refuse := func(which ...Method) func(Method) error {
		return func(m Method) error {
			for _, w := range which {
				if m == w {
					return explain(unix.EKEYREJECTED)
				}
			}
			return nil
		}
	}
	for _, tc := range []struct {
		name      string
		available int64
		methods   []Method
		try       func(Method) error
		want      Method
		text      string
	}{
		{"plenty", 1 << 30, both, refuse(), FileLoad, "was accepted"},
		{"little memory", 200 << 20, both, refuse(), SegmentLoad, "not kexec_file_load: needs"},
		{"signature refused", 1 << 30, both, refuse(FileLoad), SegmentLoad, "does not trust the signature"},
		{"only the other call wanted", 1 << 30, []Method{SegmentLoad}, refuse(), SegmentLoad, "was accepted"},
		{"all refused", 1 << 30, both, refuse(FileLoad, SegmentLoad), "", "no way to load"},
		{"not to be asked", 1 << 30, both, nil, FileLoad, "not tried"},
		{"no memory", 100 << 20, both, refuse(), "", "100 MiB are free"},
	} {
		m := measure(Facts{MemAvailable: tc.available, CountsReads: true}, 64<<20, 50<<20, 100<<20)
		got, check := choose(m, tc.methods, tc.try)
		if got != tc.want || (check.Status == Fail) != (tc.want == "") || !strings.Contains(check.Text, tc.text) {
			t.Errorf("%s: %q, %+v; want %q with %q", tc.name, got, check, tc.want, tc.text)
		}
	}
}

// TestPeaks: emptying the files while they are loaded is worth one image.
func TestPeaks(t *testing.T) {
	t.Parallel()
	for counts, want := range map[bool]Memory{
		true:  {Image: 64 << 20, FileLoad: (128 + 50 + 48) << 20, Segments: (64 + 50 + 48) << 20, NewSystem: (64 + 100 + 160) << 20},
		false: {Image: 64 << 20, FileLoad: (192 + 50 + 48) << 20, Segments: (64 + 50 + 48) << 20, NewSystem: (64 + 100 + 160) << 20},
	} {
		if got := measure(Facts{CountsReads: counts}, 64<<20, 50<<20, 100<<20); got != want {
			t.Errorf("with reads counted %t: %+v; want %+v", counts, got, want)
		}
	}
	if got := initSize(testKernel()); got != 50<<20 {
		t.Errorf("initSize = %d; want %d", got, 50<<20)
	}
	if got := initSize([]byte("kernel")); got != 0 {
		t.Errorf("initSize of no kernel = %d; want 0", got)
	}
}

func TestMemoryOfNewSystem(t *testing.T) {
	t.Parallel()
	for total, want := range map[int64]Status{256 << 20: Fail, 2 << 30: OK} {
		m := measure(Facts{MemTotal: total}, 64<<20, 50<<20, 100<<20)
		if got := m.check(); got.Status != want {
			t.Errorf("with %d MiB: %+v; want %s", total>>20, got, want)
		}
	}
}

func TestExplainKeepsCause(t *testing.T) {
	t.Parallel()
	for _, errno := range []error{unix.ENOSYS, unix.EPERM, unix.ENOMEM, unix.EINVAL} {
		if err := explain(errno); !errors.Is(err, errno) {
			t.Errorf("explain(%v) = %v; want it in the chain", errno, err)
		}
	}
	if explain(nil) != nil {
		t.Error("explain(nil) is an error")
	}
}
