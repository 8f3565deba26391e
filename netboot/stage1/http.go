package stage1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/mirror"
	"xnodeos.org/netboot/stage1/fetch"
)

// ramFile is a file in memory whose pages become the payload.
type ramFile interface {
	io.WriterAt
	// Path is where it lies.
	Path() string
	// Finish says that it is complete.
	Finish() error
	// Release gives the memory back.
	Release()
}

// httpSource is the payload on mirrors.
type httpSource struct {
	// mirrors are those that are known from the start; more waits until all are.
	mirrors []fetch.Mirror
	more    func(ctx context.Context) []fetch.Mirror
	// floor waits until the lowest sequence is known that may be taken by a
	// signature; a manifest whose hash is named is taken as it is.
	floor   func() uint32
	check   fetch.Check
	options fetch.Options
	watch   *Stopwatch
	con     *Console
	// online waits until there is a network.
	online func(ctx context.Context) error
	// room makes a file of that size, or says that there is no memory for it.
	room func(size int64) (ramFile, error)

	mu    sync.Mutex
	state httpState
	asked bool
}

// httpState is how far the source is.
type httpState string

const (
	httpOffline httpState = "no network card has an address yet"
	httpBusy    httpState = "still fetching"
	httpEnded   httpState = ""
)

// errNamed is in the chain of an error about servers that somebody named: then
// there is less reason to wait for media.
var errNamed = errors.New("payload over the network")

func (h *httpSource) become(state httpState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = state
}

func (h *httpSource) Next(ctx context.Context, _ func(string, error)) (*Candidate, error) {
	if h.asked {
		return nil, errNoMore
	}
	h.asked = true
	if h.named() {
		h.become(httpOffline)
	}
	mirrors := h.more(ctx)
	if len(mirrors) == 0 {
		return nil, errors.Join(errNoMore, ctx.Err())
	}
	h.mu.Lock()
	h.mirrors, h.state = mirrors, httpOffline
	h.mu.Unlock()
	if floor := h.floor(); h.check.NeedsSignature() {
		h.check.Floor = floor
	}
	if err := h.waitOnline(ctx); err != nil {
		return nil, err
	}
	h.become(httpBusy)
	defer h.become(httpEnded)
	c, err := h.fetch(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", errNamed, err)
	}
	return c, err
}

func (h *httpSource) waitOnline(ctx context.Context) error {
	defer h.watch.Begin(PhaseDHCP)()
	return h.online(ctx)
}

func (h *httpSource) fetch(ctx context.Context) (*Candidate, error) {
	defer h.watch.Begin(PhaseFetch)()
	h.con.Sayf("fetching from %s", h.names())
	o := h.options
	o.OnFault = func(m fetch.Mirror, f mirror.Fault) { h.con.Debugf("%s: %v", m, &f) }
	m, raw, err := fetch.Manifest(ctx, h.mirrors, h.check, o)
	if err != nil {
		return nil, err
	}
	file, err := h.room(m.Payload.Size)
	if err != nil {
		return nil, err
	}
	h.con.Sayf("fetching %s, %.1f MB", m.Label, float64(m.Payload.Size)/1e6)
	o.Progress = h.progress(m.Payload.Size)
	begun := o.Clock()
	if err := errorsFirst(fetch.Payload(ctx, h.mirrors, &m.Payload, file, o), file.Finish()); err != nil {
		file.Release()
		return nil, err
	}
	took := max(o.Clock()-begun, time.Millisecond)
	h.con.Sayf("fetched and checked %.1f MB in %.2f s", float64(m.Payload.Size)/1e6, took.Seconds())
	return &Candidate{
		Manifest: m, Digest: manifest.DigestOf(raw), Medium: h.names(), Path: file.Path(), Checked: true, Release: file.Release,
	}, nil
}

// progress says now and then how far it is.
func (h *httpSource) progress(size int64) func(done int64) {
	last := h.options.Clock()
	return func(done int64) {
		if now := h.options.Clock(); now-last >= progressStep {
			last = now
			h.con.Sayf("fetched %.1f of %.1f MB", float64(done)/1e6, float64(size)/1e6)
		}
	}
}

func (h *httpSource) names() string {
	var names []string
	for _, m := range h.mirrors {
		names = append(names, m.String())
	}
	return strings.Join(names, " and ")
}

// isNamed says whether somebody named servers for the payload.
func isNamed(source payloadSource) bool {
	h, ok := source.(*httpSource)
	return ok && h.named()
}

func (h *httpSource) named() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.mirrors) > 0
}

// Busy says that the source has bounds of its own under way.
func (h *httpSource) Busy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state == httpBusy
}

func (h *httpSource) Report() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.mirrors) == 0 || h.state == httpEnded {
		return nil
	}
	return []string{fmt.Sprintf("%s: %s", h.names(), h.state)}
}

// CheckPayload refuses a payload that does not fit into memory beside what the
// system needs to start. It is asked before anything is fetched; what is fetched
// passes through buffers that fit into the system's share.
func (m Memory) CheckPayload(size int64) error {
	needed := size + MemoryNeeded
	if m.Available >= needed {
		return nil
	}
	return &StepError{
		Step: "check memory",
		Cause: fmt.Errorf("%d MB are free of %d MB, %d MB are needed: %d for the payload, %d to start the system",
			m.Available>>20, m.Total>>20, (needed+1<<20-1)>>20, (size+1<<20-1)>>20, MemoryNeeded>>20),
		Remedy: fmt.Sprintf("give the machine at least %d MB more memory, or boot from a medium that holds the payload",
			(needed-m.Available+1<<20-1)>>20),
	}
}

// parsePayloadWords reads xnode.payload= words. One that is no URL becomes a
// note: another may be one, or a medium is there.
func parsePayloadWords(words []string) ([]fetch.Mirror, []string) {
	return parseMirrors("xnode.payload=", nil, words)
}

// addMirrors adds the URLs of the node config's file payload.
func addMirrors(mirrors []fetch.Mirror, urls []string) ([]fetch.Mirror, []string) {
	return parseMirrors("payload of the node config ", mirrors, urls)
}

func parseMirrors(from string, known []fetch.Mirror, urls []string) ([]fetch.Mirror, []string) {
	mirrors := slices.Clone(known)
	var notes []string
	for _, u := range urls {
		m, err := fetch.ParseMirror(u)
		switch {
		case err != nil:
			notes = append(notes, fmt.Sprintf("%signored: %v", from, err))
		case slices.Contains(known, m):
		case len(mirrors) == fetch.MaxMirrors:
			notes = append(notes, fmt.Sprintf("%s%s ignored: %d mirrors are allowed", from, u, fetch.MaxMirrors))
		default:
			mirrors = append(mirrors, m)
		}
	}
	return mirrors, notes
}

// resolvConf is resolv.conf(5) for the name servers of all links.
func resolvConf(results []LinkResult) string {
	var b strings.Builder
	seen := map[string]bool{}
	for _, r := range results {
		if r.Lease == nil {
			continue
		}
		for _, server := range r.Lease.DNS {
			if text := server.String(); !seen[text] {
				seen[text] = true
				fmt.Fprintf(&b, "nameserver %s\n", text)
			}
		}
	}
	b.WriteString("options timeout:2 attempts:2\n")
	return b.String()
}

// hasLease says whether a link has an address.
func hasLease(results []LinkResult) bool {
	for _, r := range results {
		if r.Lease != nil {
			return true
		}
	}
	return false
}

// errNoTrust is why no payload can be taken at all.
var errNoTrust = errors.New("the command line names no manifest and the node config has no key for one, so that no payload can be trusted")

// wanted says which manifest is the right one: the one that the command line
// names, or else one that a key of the node config signed.
func wanted(word string, check fetch.Check) (wantedManifest, error) {
	const remedy = "boot with xnode.manifest=sha256:HEX, the word that `xnodeos image build` writes beside the payload, " +
		"or build the image with a node config whose trust/allowed_signers lists a key for xnode-manifest"
	check.Digest = word
	if word == "" {
		if check.Validate() != nil {
			return wantedManifest{}, stepError("find payload", errNoTrust, remedy)
		}
		return wantedManifest{check}, nil
	}
	hex, ok := strings.CutPrefix(word, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return wantedManifest{}, stepError("find payload", fmt.Errorf("xnode.manifest=%q is not sha256: and 64 hex digits", word), remedy)
	}
	return wantedManifest{check}, nil
}
