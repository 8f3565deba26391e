package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestSeededFaults is the promise of the package: whatever mirrors do, the bytes
// are right, or the error says what each of them did.
func TestSeededFaults(t *testing.T) {
	t.Parallel()
	complete, failed := 0, 0
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			if seededRun(t, seed) {
				complete++
			} else {
				failed++
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d complete, %d ended in an error", complete, failed)
	if complete < 50 || failed < 20 {
		t.Errorf("%d complete and %d failed runs; the seeds prove too little", complete, failed)
	}
}

func seededRun(t *testing.T, seed uint64) (complete bool) {
	r := rand.New(rand.NewPCG(seed, 3))
	release := newRelease(t, seed, 1+r.IntN(30*testChunk))
	web := newWeb()
	defer web.close()
	var mirrors []Mirror
	healthy := false
	for i := range 1 + r.IntN(3) {
		bad := seededMishaps(t, web, r, release)
		healthy = healthy || len(bad) == 0
		mirrors = append(mirrors, web.serve(t, fmt.Sprintf("host%d", i), &badServer{release, bad}))
	}
	sink := newSheet(len(release.payload))
	f := &payloadFetch{o: Options{Client: web.client, Clock: stopwatch(), Parallel: 1 + r.IntN(5)}.withDefaults(), sink: sink}
	f.board = newBoard(&release.m.Payload, mirrors, f.o)
	err := f.run(t.Context())
	if most := f.limit + 2; f.buffers > most || len(f.free) != f.buffers && err == nil {
		t.Errorf("%d buffers, %d of them free; want at most %d, and all free at the end", f.buffers, len(f.free), most)
	}
	if err == nil {
		if !bytes.Equal(sink.data, release.payload) {
			t.Error("the bytes are not those of the payload")
		}
		return true
	}
	var all *Error
	if !errors.As(err, &all) || len(all.Mirrors) != len(mirrors) {
		t.Fatalf("%v; want an Error with %d mirrors", err, len(mirrors))
	}
	for _, m := range all.Mirrors {
		if len(m.Faults) == 0 {
			t.Errorf("%v: nothing is said of %s", err, m.Server)
		}
	}
	if healthy {
		t.Errorf("one mirror is sound, and still: %v", err)
	}
	for i, n := range sink.count {
		if n > 0 && sink.data[i] != release.payload[i] {
			t.Fatalf("byte %d in the sink is wrong", i)
		}
	}
	return false
}

// seededMishaps makes a server good, bad now and then, or bad for good.
func seededMishaps(t *testing.T, web *web, r *rand.Rand, release *release) []mishap {
	d := newDice(r.Uint64())
	other := newRelease(t, r.Uint64(), len(release.payload))
	longer := newRelease(t, r.Uint64(), len(release.payload)+1)
	next := len(web.servers)
	always := []mishap{
		wholeFile, gzipped, redirectLoop, redirectFarther, status(404), status(503), otherRange, otherFile(other), otherFile(longer),
		hang(d), flip(d), slow(time.Second), slow(20 * time.Second), cut(d),
		dies(func() *http.Server { return web.servers[next] }, d, len(release.payload)),
	}
	switch r.IntN(5) {
	case 0:
		return nil
	case 1:
		return []mishap{always[r.IntN(len(always))]}
	case 2:
		return []mishap{some(d, 2+r.IntN(8), always[r.IntN(len(always))])}
	case 3:
		return []mishap{wholeFile, some(d, 2+r.IntN(4), always[r.IntN(len(always))])}
	}
	return []mishap{some(d, 4, always[r.IntN(len(always))]), some(d, 4, always[r.IntN(len(always))])}
}
