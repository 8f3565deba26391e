package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/mirror"
)

const (
	// MaxSignature bounds a signature, in bytes.
	MaxSignature = 64 << 10
	// manifestReaders bounds how many mirrors may fill memory at a time.
	manifestReaders = 2
)

// Manifest asks all mirrors for manifest.json, and for its signature where the
// check needs it, and returns the first manifest that is accepted, with its
// bytes as they came. Faults that pass are tried again until Options.GiveUp. The
// error is an *Error, or that of a check that can accept nothing.
func Manifest(ctx context.Context, mirrors []Mirror, check Check, o Options) (*manifest.Manifest, []byte, error) {
	if err := errors.Join(check.Validate(), checkMirrors(mirrors)); err != nil {
		return nil, nil, err
	}
	f := &manifestFetch{o: o.withDefaults(), check: check, readers: make(chan struct{}, manifestReaders)}
	ctx, cancel := context.WithTimeoutCause(ctx, f.o.GiveUp, ErrNoProgress)
	defer cancel()
	faults := make([]mirror.Report, len(mirrors))
	found := make(chan manifestFound, len(mirrors))
	var asking sync.WaitGroup
	for i, m := range mirrors {
		faults[i].Server = m.String()
		asking.Go(func() {
			if got := f.ask(ctx, m, &faults[i]); got.manifest != nil {
				found <- got
				cancel()
			}
		})
	}
	asking.Wait()
	select {
	case got := <-found:
		return got.manifest, got.raw, nil
	default:
	}
	cause := context.Cause(ctx)
	if cause == nil {
		cause = ErrNoMirror
	}
	return nil, nil, &Error{What: ManifestName, Cause: cause, Mirrors: faults}
}

func checkMirrors(mirrors []Mirror) error {
	if len(mirrors) == 0 || len(mirrors) > MaxMirrors {
		return fmt.Errorf("%d mirrors; allowed are 1 to %d", len(mirrors), MaxMirrors)
	}
	return nil
}

type manifestFetch struct {
	o       Options
	check   Check
	readers chan struct{}
	mu      sync.Mutex // of OnFault
}

type manifestFound struct {
	manifest *manifest.Manifest
	raw      []byte
}

// ask asks one mirror until it has the manifest, is dropped, or time is up.
func (f *manifestFetch) ask(ctx context.Context, m Mirror, faults *mirror.Report) manifestFound {
	strikes := 0
	for try := 1; ; try++ {
		got, err := f.once(ctx, m)
		if err == nil {
			return got
		}
		var fault *mirror.Fault
		if ctx.Err() != nil || !errors.As(err, &fault) {
			return manifestFound{}
		}
		faults.Add(*fault)
		f.say(m, *fault)
		if plain(fault.Kind) {
			if strikes++; strikes == maxStrikes {
				faults.Dropped = true
				return manifestFound{}
			}
		}
		timer := time.NewTimer(mirror.Backoff(try, f.o.Jitter()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return manifestFound{}
		case <-timer.C:
		}
	}
}

func (f *manifestFetch) say(m Mirror, fault mirror.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.o.OnFault(m, fault)
}

// once asks for the files of the check once.
func (f *manifestFetch) once(ctx context.Context, m Mirror) (manifestFound, error) {
	select {
	case f.readers <- struct{}{}:
		defer func() { <-f.readers }()
	case <-ctx.Done():
		return manifestFound{}, ctx.Err()
	}
	data, err := f.small(ctx, m, ManifestName, manifest.MaxSize)
	if err != nil {
		return manifestFound{}, err
	}
	var signature []byte
	if f.check.NeedsSignature() {
		if signature, err = f.small(ctx, m, SignatureName, MaxSignature); err != nil {
			return manifestFound{}, err
		}
	}
	accepted, err := f.check.Accept(data, signature)
	if err != nil {
		return manifestFound{}, &mirror.Fault{Kind: BadManifest, Err: err}
	}
	return manifestFound{accepted, data}, nil
}

// small reads a whole file that has a bound, whatever length is announced.
func (f *manifestFetch) small(ctx context.Context, m Mirror, name string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := newWatchdog(f.o.StallTimeout, cancel)
	defer dog.stop()
	a, err := get(ctx, f.o.Client, mirror.Request{URL: m.file(name)}, 0)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	dog.rest()
	if a.Length > limit {
		return nil, mirror.Faultf(BadManifest, "%s has %d bytes; allowed are %d", name, a.Length, limit)
	}
	var data bytes.Buffer
	_, err = io.Copy(&data, &fedReader{io.LimitReader(a.Body, limit+1), dog})
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return nil, mirror.Faultf(mirror.Stalled, "%s at byte %d: %w", name, data.Len(), context.Cause(ctx))
	case err != nil:
		return nil, mirror.Faultf(mirror.CutOff, "%s at byte %d: %w", name, data.Len(), err)
	case int64(data.Len()) > limit:
		return nil, mirror.Faultf(BadManifest, "%s has more than the allowed %d bytes", name, limit)
	}
	return data.Bytes(), nil
}

// fedReader tells the watchdog of what it reads.
type fedReader struct {
	r   io.Reader
	dog *watchdog
}

func (f *fedReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.dog.feed(n)
	return n, err
}
