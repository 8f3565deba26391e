package stage1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"xnodeos.org/internal/manifest"
)

// Candidate is a payload whose manifest is the one that the command line names;
// its bytes are not checked yet.
type Candidate struct {
	Manifest *manifest.Manifest
	// Digest is "sha256:HEX" of the manifest's bytes.
	Digest string
	// Checked says that every byte was checked on its way here.
	Checked bool
	// Medium is where it lies, for people: "cd /dev/sr0".
	Medium string
	// Path is the squashfs file.
	Path string
	// Blocks says that the kernel is to check each block as it is read, because
	// the bytes were not checked.
	Blocks bool
	// Keep makes the place of the file permanent and returns its path after that;
	// nil where it is so already.
	Keep func() (string, error)
	// Release gives the place up again; nil where nothing is held.
	Release func()
}

func (c *Candidate) release() {
	if c.Release != nil {
		c.Release()
	}
}

// payloadSource is one way to a payload. Several work at the same time; the one
// that first has a payload that passes verification wins.
type payloadSource interface {
	// Next waits for the next candidate. It returns errNoMore if there will be
	// none, and the context's error when it ends. What is wrong with a place is
	// said to the given function and does not end the search.
	Next(ctx context.Context, reject func(place string, err error)) (*Candidate, error)
	// Report says what was seen, for the error that no payload was found.
	Report() []string
}

// busySource is a source that may be at work for long without a candidate, with
// bounds of its own.
type busySource interface {
	Busy() bool
}

// errNoMore is how a source says that it has nothing more to offer.
var errNoMore = errors.New("no further payload")

// Bounds of the search. Verification has no bound of its own as long as bytes
// come: a remote-hands CD gives 500 kB/s.
const (
	searchLimit  = 60 * time.Second
	stallLimit   = 120 * time.Second
	progressStep = 3 * time.Second
	readRetries  = 2
	retryPause   = 2 * time.Second
	busyLook     = time.Second
	// afterFailure is what media still have when what was asked for by name
	// has failed for good.
	afterFailure = 20 * time.Second
	// afterBad is the same when every medium that is there was found bad, and
	// nothing else was asked for: longer than any stick has been seen to take.
	afterBad = 20 * time.Second
	// askEnd bounds the end of the sources that lost: one may hang in a drive.
	askEnd = time.Second
)

// search finds and verifies the payload.
type search struct {
	sources []payloadSource
	watch   *Stopwatch
	con     *Console
	limit   time.Duration // without a candidate
	// settled says whether all devices seem to be there and were looked at; nil
	// means that nobody can tell.
	settled func() bool
	// blocks says whether the kernel will check each block as it is read; nil
	// means that it is not asked.
	blocks func() error

	rejected []string
}

type offer struct {
	candidate *Candidate
	// done is called when the candidate was judged, so that its source goes on.
	done chan struct{}
}

// run returns the first candidate of which every byte is right.
func (s *search) run(ctx context.Context) (*Candidate, error) {
	ctx, cancel := context.WithCancel(ctx)
	offers, ready := make(chan offer), make(chan offer)
	rejects, ended := make(chan string), make(chan error)
	var asking sync.WaitGroup
	defer waitBounded(&asking, askEnd)
	defer cancel()
	for _, source := range s.sources {
		asking.Go(func() {
			hand(ctx, ended, guard(func() error { return s.ask(ctx, source, offers, ready, rejects) }))
		})
	}
	waited := s.watch.Begin(PhaseDevices)
	defer func() { waited() }()
	open := len(s.sources)
	wait := newPatience(s.limit)
	defer wait.stop()
	for open > 0 {
		select {
		case o := <-offers:
			waited()
			winner, err := s.judge(ctx, o, ready)
			waited = s.watch.Begin(PhaseDevices)
			if err == nil {
				return winner, nil
			}
			s.reject(fmt.Sprintf("%s: %v", o.candidate.Medium, err))
			o.candidate.release()
			close(o.done)
			wait.judged()
		case o := <-ready:
			return o.candidate, nil
		case text := <-rejects:
			s.reject(text)
			wait.rejected()
		case err := <-ended:
			open--
			if err != nil && !errors.Is(err, errNoMore) {
				s.reject(err.Error())
			}
			if errors.Is(err, errNamed) {
				wait.shorten(afterFailure)
			}
		case <-wait.bad.C:
			if !s.mayStillCome() {
				return nil, s.failed(fmt.Errorf("every medium that is there is bad, and no other came in %.0f s", afterBad.Seconds()))
			}
			wait.bad.Reset(busyLook)
		case <-wait.timer.C:
			if !s.busy() {
				return nil, s.failed(fmt.Errorf("none found in %.0f s", wait.limit.Seconds()))
			}
			wait.timer.Reset(busyLook)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, s.failed(errors.New("none found"))
}

// judge verifies a candidate, unless meanwhile another comes that needs no
// verification.
func (s *search) judge(ctx context.Context, o offer, ready <-chan offer) (*Candidate, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	verified := make(chan error, 1)
	go func() { verified <- guard(func() error { return s.verify(ctx, o.candidate) }) }()
	select {
	case err := <-verified:
		return o.candidate, err
	case faster := <-ready:
		s.con.Sayf("%s was faster than %s", faster.candidate.Medium, o.candidate.Medium)
		o.candidate.release()
		return faster.candidate, nil
	}
}

// busy says whether a source is still at work.
func (s *search) busy() bool {
	for _, source := range s.sources {
		if b, ok := source.(busySource); ok && b.Busy() {
			return true
		}
	}
	return false
}

// mayStillCome says whether waiting makes sense although all that is there is
// bad: devices are still coming up, or servers are asked.
func (s *search) mayStillCome() bool {
	return s.settled == nil || !s.settled() || s.busy() || slices.ContainsFunc(s.sources, isNamed)
}

// ask hands on what one source offers, one candidate at a time; what is checked
// already goes another way.
func (s *search) ask(ctx context.Context, source payloadSource, offers, ready chan<- offer, rejects chan<- string) error {
	reject := func(place string, err error) {
		hand(ctx, rejects, fmt.Sprintf("%s: %v", place, err))
	}
	for {
		c, err := source.Next(ctx, reject)
		if err != nil {
			return err
		}
		o := offer{candidate: c, done: make(chan struct{})}
		to := offers
		if c.Checked {
			to = ready
		}
		select {
		case to <- o:
		case <-ctx.Done():
			c.release()
			return ctx.Err()
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hand sends, unless nobody waits for it any more.
func hand[T any](ctx context.Context, to chan<- T, what T) {
	select {
	case to <- what:
	case <-ctx.Done():
	}
}

func (s *search) reject(text string) {
	s.con.Sayf("skipped %s", text)
	s.rejected = append(s.rejected, text)
}

func (s *search) failed(cause error) error {
	var seen []string
	for _, source := range s.sources {
		seen = append(seen, source.Report()...)
	}
	said := append(append([]string(nil), s.rejected...), seen...)
	if len(said) == 0 {
		said = []string{"no disk, stick or CD is there"}
	}
	remedy := "insert the medium that was written together with this kernel and initrd, or write it again"
	if slices.ContainsFunc(s.sources, isNamed) {
		remedy = "let a server that xnode.payload= names have the files of one build, or " + remedy
	}
	return &StepError{Step: "find payload", Cause: fmt.Errorf("%w: %s", cause, strings.Join(said, "; ")), Remedy: remedy}
}

// verify reads the whole payload. A read error is tried again; a wrong byte is
// final.
//
// Where the kernel can check blocks, only the length is looked at here: what is
// used is read once, and checked then. Where it cannot, that is said.
func (s *search) verify(ctx context.Context, c *Candidate) error {
	defer s.watch.Begin(PhaseVerify)()
	mb := float64(c.Manifest.Payload.Size) / 1e6
	if s.blocks != nil {
		err := errNoTree
		if c.Manifest.Payload.Verity != nil {
			err = s.blocks()
		}
		if err == nil {
			c.Blocks = true
			s.con.Sayf("found %s on %s, each block of %.1f MB is checked when it is read", c.Manifest.Label, c.Medium, mb)
			return checkFileSize(c)
		}
		s.con.Sayf("blocks cannot be checked as they are read, so the whole payload is read first: %v", err)
	}
	s.con.Sayf("found %s on %s, checking %.1f MB", c.Manifest.Label, c.Medium, mb)
	for try := 0; ; try++ {
		err := s.verifyOnce(ctx, c)
		if err == nil || isFinal(err) || try == readRetries || ctx.Err() != nil {
			return err
		}
		s.con.Sayf("%s: %v; trying again", c.Medium, err)
		pause(ctx, nil, retryPause)
	}
}

// isFinal tells wrong bytes from bytes that could not be read.
func isFinal(err error) bool {
	var chunk *manifest.ChunkError
	var size *manifest.SizeError
	var digest *manifest.DigestError
	return errors.As(err, &chunk) || errors.As(err, &size) || errors.As(err, &digest) ||
		errors.Is(err, errStalled) || errors.Is(err, errCutOff)
}

// errNoTree is why blocks of an older payload cannot be checked.
var errNoTree = errors.New("its manifest has no hash tree")

var (
	errStalled = errors.New("the medium gave no byte")
	errCutOff  = errors.New("the payload is cut off")
)

// verifyOnce runs in a goroutine of its own, because a read from a broken drive
// may never come back.
func (s *search) verifyOnce(ctx context.Context, c *Candidate) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	steps := make(chan int64, 1)
	go func() {
		done <- guard(func() error { return verifyFile(ctx, c, steps) })
	}()
	stall := time.NewTimer(stallLimit)
	defer stall.Stop()
	tick := time.NewTicker(progressStep)
	defer tick.Stop()
	var bytes int64
	for {
		select {
		case err := <-done:
			return err
		case bytes = <-steps:
			stall.Reset(stallLimit)
		case <-tick.C:
			s.con.Sayf("checked %.1f of %.1f MB", float64(bytes)/1e6, float64(c.Manifest.Payload.Size)/1e6)
		case <-stall.C:
			return fmt.Errorf("%w in %.0f s", errStalled, stallLimit.Seconds())
		}
	}
}

func verifyFile(ctx context.Context, c *Candidate, steps chan int64) error {
	f, err := os.Open(c.Path)
	if err != nil {
		return fmt.Errorf("open payload: %w", err)
	}
	defer f.Close()
	if err := checkSize(f, c.Manifest.Payload.Size); err != nil {
		return err
	}
	return c.Manifest.Payload.Verify(ctx, f, func(done int64) {
		select { // only the newest number counts
		case <-steps:
		default:
		}
		select {
		case steps <- done:
		default:
		}
	})
}

func checkFileSize(c *Candidate) error {
	f, err := os.Open(c.Path)
	if err != nil {
		return fmt.Errorf("open payload: %w", err)
	}
	defer f.Close()
	return checkSize(f, c.Manifest.Payload.Size)
}

// checkSize sees a payload that was cut off before its bytes are read: an initrd
// that does not fit into memory ends like that.
func checkSize(f io.Seeker, want int64) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("size of payload: %w", err)
	}
	if size < want {
		return fmt.Errorf("%w after %d of %d bytes; if it came inside an initrd, the machine has too little memory for it", errCutOff, size, want)
	}
	return nil
}
