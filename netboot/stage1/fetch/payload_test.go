package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"xnodeos.org/internal/mirror"
)

// stopwatch is a clock for Options.
func stopwatch() func() time.Duration {
	begun := time.Now()
	return func() time.Duration { return time.Since(begun) }
}

// one fetches from mirrors that answer as told, in a bubble of their own.
func one(t *testing.T, size int, o Options, check func(err error, got *sheet, r *release), bad ...[]mishap) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRelease(t, 1, size)
		web := newWeb()
		var mirrors []Mirror
		for i, b := range bad {
			mirrors = append(mirrors, web.serve(t, fmt.Sprintf("host%d", i), &badServer{r, b}))
		}
		o.Client, o.Clock = web.client, stopwatch()
		sink := newSheet(size)
		err := Payload(t.Context(), mirrors, &r.m.Payload, sink, o)
		web.close()
		check(err, sink, r)
	})
}

// kinds are those that an error names for mirror i.
func kinds(err error, i int) []mirror.FaultKind {
	var all *Error
	if !errors.As(err, &all) {
		return nil
	}
	var list []mirror.FaultKind
	for _, f := range all.Mirrors[i].Faults {
		list = append(list, f.Kind)
	}
	return list
}

func TestFaultsAreNamed(t *testing.T) {
	t.Parallel()
	d := newDice(1)
	for name, tt := range map[string]struct {
		bad  mishap
		kind mirror.FaultKind
		text string
	}{
		"gzip": {gzipped, mirror.Encoded, `Content-Encoding is "gzip"`},
		"loop": {redirectLoop, mirror.Redirected, "a loop by"},
		"far":  {redirectFarther, mirror.Redirected, "more than 5"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, mirror.Redirected, "file:///etc/passwd"},
		"missing":      {status(404), mirror.Refused, "404"},
		"forbidden":    {status(403), mirror.Refused, "403"},
		"no content":   {status(204), mirror.Refused, "204"},
		"out of range": {status(416), mirror.WrongFile, "shorter"},
		"busy":         {status(503), mirror.Busy, "503"},
		"other bytes":  {otherRange, mirror.WrongRange, "Content-Range"},
		"other file":   {otherFile(newRelease(t, 9, 5*testChunk)), mirror.WrongBytes, "sha256"},
		"longer":       {otherFile(newRelease(t, 1, 6*testChunk)), mirror.WrongFile, "393216 bytes, the manifest says 327680"},
		"silent":       {func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }, mirror.Stalled, "less than 16384 bytes in 15 s"},
		"drips":        {slow(20 * time.Second), mirror.Stalled, "less than 16384 bytes in 15 s"},
		"lies":         {flip(d), mirror.WrongBytes, "sha256"},
		"nonsense": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Range", "bytes 1-")
			w.WriteHeader(http.StatusPartialContent)
		}, mirror.WrongRange, `"bytes 1-"`},
		"big header": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			w.WriteHeader(http.StatusOK)
		}, mirror.Unreachable, "header"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one(t, 5*testChunk, Options{}, func(err error, _ *sheet, _ *release) {
				if got := kinds(err, 0); !slices.Contains(got, tt.kind) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%v\nwant the fault %q with %q", err, tt.kind, tt.text)
				}
				if want := map[bool]error{true: ErrNoMirror, false: ErrNoProgress}[plain(tt.kind)]; !errors.Is(err, want) {
					t.Errorf("%v; want it to be: %v", err, want)
				}
			}, []mishap{tt.bad})
		})
	}
}

// TestMirrorsHelp: each of these mirrors alone, or beside one other, still gives
// all the bytes.
func TestMirrorsHelp(t *testing.T) {
	t.Parallel()
	d := newDice(2)
	for name, bad := range map[string][][]mishap{
		"sound":                      {nil},
		"ignores Range":              {{wholeFile}},
		"ignores Range, breaks":      {{wholeFile, every(2, cut(d))}},
		"ignores Range now and then": {{some(d, 2, wholeFile)}},
		"breaks every time":          {{cut(d)}},
		"hangs every time":           {{hang(d)}},
		"lies now and then":          {{every(20, flip(d))}},
		"a liar beside":              {{flip(d)}, nil},
		"a dripping one beside":      {{slow(10 * time.Second)}, nil},
		"a silent one beside":        {{hang(d)}, {cut(d)}},
		"a whole one beside":         {{wholeFile}, nil},
		"a slow whole one beside":    {{wholeFile, slow(time.Second)}, {slow(100 * time.Millisecond)}},
		"both break, one lies":       {{cut(d), every(20, flip(d))}, {cut(d)}},
		"a redirect to the right one": {{func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "http://host1/files/"+PayloadName, http.StatusFound)
		}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one(t, 40*testChunk+17, Options{}, func(err error, got *sheet, r *release) {
				if err != nil || !bytes.Equal(got.data, r.payload) {
					t.Errorf("%v; want all bytes", err)
				}
			}, bad...)
		})
	}
}

// TestFasterMirrorGivesMore and is not held up by the slow one at the end.
func TestFasterMirrorGivesMore(t *testing.T) {
	t.Parallel()
	served := [2]int{}
	d := newDice(3)
	count := func(i int) mishap {
		return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			next.ServeHTTP(&bodyWriter{w, func(p []byte) { d.mu.Lock(); served[i] += len(p); d.mu.Unlock() }}, req)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRelease(t, 1, 60*testChunk)
		web := newWeb()
		defer web.close()
		mirrors := []Mirror{
			web.serve(t, "slow", &badServer{r, []mishap{count(0), slow(2 * time.Second)}}), // 32 s a chunk
			web.serve(t, "fast", &badServer{r, []mishap{count(1), slow(50 * time.Millisecond)}}),
		}
		now := stopwatch()
		sink := newSheet(len(r.payload))
		if err := Payload(t.Context(), mirrors, &r.m.Payload, sink, Options{Client: web.client, Clock: now}); err != nil || !bytes.Equal(sink.data, r.payload) {
			t.Fatal(err)
		}
		// The fast one alone needs 60 chunks * 0.8 s on 2 of 4 lanes.
		if took := now(); took > 28*time.Second {
			t.Errorf("it took %v; the slow mirror held it up", took)
		}
	})
	if served[1] < 5*served[0] {
		t.Errorf("the slow mirror gave %d bytes, the fast one %d", served[0], served[1])
	}
}

// TestLiarIsFound: a mirror breaks off, another goes on with wrong bytes. The
// chunk does not say whose they are; a whole copy of it does.
func TestLiarIsFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRelease(t, 1, testChunk)
		web := newWeb()
		defer web.close()
		asked := 0
		honest := func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if asked++; asked > 1 { // the first answer breaks in the middle, and it rests
				next.ServeHTTP(w, req)
				return
			}
			left := testChunk / 2
			next.ServeHTTP(&bodyWriter{w, func(p []byte) {
				if left -= len(p); left < 0 {
					panic(http.ErrAbortHandler)
				}
			}}, req)
		}
		liar := func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if strings.HasPrefix(req.Header.Get("Range"), "bytes=0-") {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(&bodyWriter{w, func(p []byte) { p[7] ^= 1 }}, req)
		}
		mirrors := []Mirror{web.serve(t, "honest", &badServer{r, []mishap{honest}}), web.serve(t, "liar", &badServer{r, []mishap{liar}})}
		said := map[string][]mirror.FaultKind{}
		o := Options{Client: web.client, Clock: stopwatch(), Parallel: 1, OnFault: func(m Mirror, f mirror.Fault) {
			said[m.base.Host] = append(said[m.base.Host], f.Kind)
		}}
		sink := newSheet(len(r.payload))
		if err := Payload(t.Context(), mirrors, &r.m.Payload, sink, o); err != nil || !bytes.Equal(sink.data, r.payload) {
			t.Fatal(err)
		}
		if slices.Contains(said["honest"], mirror.WrongBytes) {
			t.Errorf("the honest mirror is blamed: %v", said)
		}
		if slices.Contains(said["liar"], Doubtful) && !slices.Contains(said["liar"], mirror.WrongBytes) {
			t.Errorf("the liar is not named: %v", said)
		}
		t.Log(said)
	})
}

// TestResumeAnywhere cuts at every kind of place; no byte is asked for twice.
func TestResumeAnywhere(t *testing.T) {
	t.Parallel()
	for _, at := range []int{1, 4095, 4096, 4097, testChunk/2 + 1, testChunk - 1} {
		var sent atomic.Int64
		requests := 0 // there is one at a time
		once := func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			left := at
			if requests++; requests > 30 {
				left = testChunk
			}
			next.ServeHTTP(&countWriter{w, &sent, &left}, req)
		}
		one(t, 3*testChunk, Options{Parallel: 1}, func(err error, got *sheet, r *release) {
			if err != nil || !bytes.Equal(got.data, r.payload) {
				t.Fatalf("cut after %d bytes: %v", at, err)
			}
			if sent.Load() != 3*testChunk {
				t.Errorf("cut after %d bytes: %d bytes were sent; want %d", at, sent.Load(), 3*testChunk)
			}
		}, []mishap{once})
	}
}

// countWriter breaks off after exactly so many bytes.
type countWriter struct {
	http.ResponseWriter

	sent *atomic.Int64
	left *int
}

func (c *countWriter) Write(p []byte) (int, error) {
	n := min(len(p), *c.left)
	w, err := c.ResponseWriter.Write(p[:n])
	c.sent.Add(int64(w))
	if *c.left -= w; *c.left == 0 && w < len(p) && err == nil {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return w, err
}

type fullSink struct{ left int }

var errFull = errors.New("no space")

func (f *fullSink) WriteAt(p []byte, _ int64) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestSinkEndsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRelease(t, 1, 20*testChunk)
		web := newWeb()
		defer web.close()
		m := web.serve(t, "a", r)
		err := Payload(t.Context(), []Mirror{m}, &r.m.Payload, &fullSink{3 * testChunk}, Options{Client: web.client, Clock: stopwatch(), Parallel: 1})
		var all *Error
		if !errors.Is(err, errFull) || !errors.As(err, &all) || all.Done != 3*testChunk {
			t.Errorf("%v; want errFull after 3 chunks", err)
		}
	})
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRelease(t, 1, 20*testChunk)
		web := newWeb()
		defer web.close()
		m := web.serve(t, "a", &badServer{r, []mishap{slow(time.Second)}})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		now := stopwatch()
		err := Payload(ctx, []Mirror{m}, &r.m.Payload, newSheet(len(r.payload)), Options{Client: web.client, Clock: now})
		if !errors.Is(err, context.DeadlineExceeded) || now() != 20*time.Second {
			t.Errorf("%v after %v; want the context's end at once", err, now())
		}
	})
}

func TestPayloadRefuses(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(r *release){
		"must be":             func(r *release) { r.m.Payload.Name = "../etc/passwd" },
		"at most":             func(r *release) { r.m.Payload.ChunkSize = 32 << 20 },
		"chunk hashes":        func(r *release) { r.m.Payload.Chunks = r.m.Payload.Chunks[1:] },
		"allowed are 1 to 16": func(*release) {},
	} {
		r := newRelease(t, 1, 3*testChunk)
		change(r)
		if err := Payload(t.Context(), nil, &r.m.Payload, newSheet(1), Options{Clock: stopwatch()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
