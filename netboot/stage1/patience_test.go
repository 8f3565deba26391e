package stage1

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/verity"
	"xnodeos.org/netboot/stage1/fetch"
)

// late is a source whose candidate comes after some time.
type late struct {
	shelf
	after time.Duration
}

func (l *late) Next(ctx context.Context, reject func(string, error)) (*Candidate, error) {
	pause(ctx, nil, l.after)
	return l.shelf.Next(ctx, reject)
}

// When all that is there is bad, there is nothing to wait for, unless devices
// are still coming up or servers were named.
func TestSearchGivesUpOnBadMedia(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		settled time.Duration // when devices are
		sources []payloadSource
		least   time.Duration
		most    time.Duration
	}{
		"bad medium":        {0, nil, afterBad, afterBad},
		"slow devices":      {30 * time.Second, nil, 30 * time.Second, 30*time.Second + 2*busyLook},
		"never settled":     {time.Hour, nil, searchLimit, searchLimit},
		"servers are named": {0, []payloadSource{&httpSource{mirrors: make([]fetch.Mirror, 1), asked: true}}, searchLimit, searchLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := newSearch(nil, append(tt.sources, &shelf{said: []string{"damaged"}})...)
				s.settled = func() bool { return time.Since(start) >= tt.settled }
				_, err := s.run(t.Context())
				if took := time.Since(start); err == nil || took < tt.least || took > tt.most {
					t.Errorf("run gave up after %v with %v; want %v to %v", took, err, tt.least, tt.most)
				}
				if !strings.Contains(err.Error(), "damaged") {
					t.Errorf("run = %v; it does not say what was wrong", err)
				}
			})
		})
	}
}

// A stick that takes long is not given up because of a bad CD.
func TestSearchWaitsForSlowStick(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, dir, 4096)
	for _, after := range []time.Duration{time.Second, 15 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			released := 0
			s := newSearch(nil, &shelf{said: []string{"damaged"}},
				&late{shelf{offers: []*Candidate{candidate(t, dir, want, "usb /dev/sda", &released)}}, after})
			s.settled = func() bool { return true }
			if got, err := s.run(t.Context()); err != nil || got.Medium != "usb /dev/sda" {
				t.Errorf("after %v: %v, %v; want the stick", after, got, err)
			}
		})
	}
}

func TestVerifyBlocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, dir, 1<<20)
	for name, tt := range map[string]struct {
		tree   bool
		blocks func() error
		lazy   bool
		says   string
	}{
		"asked for whole": {true, nil, false, "checking 1.0 MB"},
		"by blocks":       {true, func() error { return nil }, true, "each block of 1.0 MB is checked when it is read"},
		"no tree":         {false, func() error { return nil }, false, "read first: its manifest has no hash tree"},
		"no module":       {true, func() error { return errors.New("no dm_verity") }, false, "read first: no dm_verity"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			released := 0
			var out buffer
			s := newSearch(&out)
			s.blocks = tt.blocks
			c := candidate(t, dir, want, "cd /dev/sr0", &released)
			if tt.tree {
				// 253 blocks of data and 3 of hashes are the megabyte.
				c.Manifest.Payload.Verity = manifest.NewVerity(verity.Tree{DataBlocks: 253})
			}
			if err := s.verify(t.Context(), c); err != nil || c.Blocks != tt.lazy {
				t.Errorf("verify: %v, by blocks %v; want %v", err, c.Blocks, tt.lazy)
			}
			s.con.Flush(time.Minute)
			if !strings.Contains(out.String(), tt.says) {
				t.Errorf("console got %q; want it to say %q", out.String(), tt.says)
			}
		})
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, err := bounded(time.Second, func() (int, string) { return 1, "x" })
		if a != 1 || b != "x" || err != nil {
			t.Errorf("bounded = %v, %v, %v", a, b, err)
		}
		if _, _, err := bounded(time.Second, func() (int, string) { panic("boom") }); !errors.Is(err, errPanic) {
			t.Errorf("a panic: %v", err)
		}
		start, hung := time.Now(), make(chan bool)
		_, _, err = bounded(45*time.Second, func() (int, string) { <-hung; return 1, "" })
		if took := time.Since(start); !errors.Is(err, errNoAnswer) || took != 45*time.Second || !strings.Contains(err.Error(), "45 s") {
			t.Errorf("a call that hangs: %v after %v", err, took)
		}
		close(hung)
	})
}

func TestAddMirrors(t *testing.T) {
	t.Parallel()
	known, _ := parsePayloadWords([]string{"http://192.0.2.1/a"})
	got, notes := addMirrors(known, []string{"http://192.0.2.1/a/", "http://192.0.2.2/", "http://192.0.2.3/?x"})
	var urls []string
	for _, m := range got {
		urls = append(urls, m.String())
	}
	if diff := cmp.Diff([]string{"http://192.0.2.1/a/", "http://192.0.2.2/"}, urls); diff != "" {
		t.Errorf("addMirrors (-want +got):\n%s", diff)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "node config") {
		t.Errorf("notes %q; want one on the third", notes)
	}
	if len(known) != 1 {
		t.Errorf("the known mirrors became %v", known)
	}
	var many []string
	for i := range fetch.MaxMirrors + 3 {
		many = append(many, fmt.Sprintf("http://192.0.2.9/%d", i))
	}
	if got, notes := addMirrors(known, many); len(got) != fetch.MaxMirrors || len(notes) != 4 {
		t.Errorf("%d mirrors, notes %q; want %d and 4 notes", len(got), notes, fetch.MaxMirrors)
	}
}

// Mirrors that only the node config's volume names are asked, after it was read.
func TestHTTPSourceTakesLateMirrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, filepath.Join(dir, "x"), 5<<20)
	h, _ := httpFrom(t, want)
	if isNamed(h) {
		t.Error("a source without mirrors counts as named")
	}
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(dir, "x"))))
	defer server.Close()
	h.more = func(context.Context) []fetch.Mirror {
		m, err := fetch.ParseMirror(server.URL)
		if err != nil {
			t.Error(err)
		}
		return []fetch.Mirror{m}
	}
	c, err := h.Next(t.Context(), nil)
	if err != nil || !c.Checked || !isNamed(h) {
		t.Errorf("Next = %+v, %v", c, err)
	}
}
