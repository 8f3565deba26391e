// Package fetch brings a payload and its manifest over HTTP, from several
// mirrors at a time, into whatever takes bytes at an offset.
//
// A mirror is the URL of a folder; only three names are ever asked for below it.
// Nothing of what a mirror says is believed: the manifest is taken by its hash
// or by its signature, every chunk by its hash before a byte of it goes on, and
// what a transport might change on the way (encodings, redirects, answers that
// ignore Range) is refused or made harmless. So plain HTTP is as good as HTTPS
// for the bytes, and the machine's clock does not matter.
//
// It does not know Linux, the command line or where the bytes go, has no clock
// of its own, and decides nothing about networks: those are the caller's.
//
// Two invariants: memory is bounded by the buffers of Options and small change,
// whatever a mirror sends; and no call waits without a bound: what brings no
// new byte for Options.GiveUp ends in an *Error that says what each mirror did.
package fetch

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/mirror"
)

// The names below a mirror's URL. They are fixed, so that no manifest can lead
// a request elsewhere.
const (
	ManifestName  = manifest.FileName
	SignatureName = manifest.FileName + ".sig"
	PayloadName   = "system.squashfs"
)

// MaxMirrors bounds the mirrors of one fetch.
const MaxMirrors = 16

// Mirror is the URL of a folder that holds the three files.
type Mirror struct {
	base url.URL
}

// scriptName is a file beside the payload. An iPXE from before 2024 has no word
// for the folder of its script (${cwduri}), only for the script (${filename}).
const scriptName = "boot.ipxe"

// ParseMirror reads the URL of a folder, with or without a slash at its end, or
// that of the boot.ipxe in it.
func ParseMirror(text string) (Mirror, error) {
	u, err := url.Parse(text)
	if err != nil {
		// The parser's message repeats the text.
		return Mirror{}, fmt.Errorf("mirror %q is not a URL; want one like http://192.0.2.1/netboot/", text)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Opaque != "":
		return Mirror{}, fmt.Errorf("mirror %q: want http:// or https:// and a host", text)
	case u.User != nil:
		return Mirror{}, fmt.Errorf("mirror %q: user and password are not allowed in it; every user of the booted system could read them", u.Redacted())
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return Mirror{}, fmt.Errorf(`mirror %q: "?" and "#" are not allowed; want the URL of a folder`, text)
	}
	if strings.HasSuffix(u.Path, "/"+scriptName) {
		u = u.JoinPath("..")
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	return Mirror{*u}, nil
}

// String returns the URL with a slash at its end.
func (m Mirror) String() string { return m.base.String() }

func (m Mirror) file(name string) string { return m.base.JoinPath(name).String() }

// Options say how to fetch. Clock is needed; the zero value of every other
// field is the default that its comment names.
type Options struct {
	// Client is what NewClient returns; that is also the default.
	Client *http.Client
	// Clock is a time that only grows.
	Clock func() time.Duration
	// Parallel is the number of requests at a time; 4.
	Parallel int
	// StallTimeout ends a request that brings next to nothing
	// (mirror.StallBytes) for so long; 15 s.
	StallTimeout time.Duration
	// GiveUp ends everything if no byte came in so long that was not there
	// before; 2 minutes.
	GiveUp time.Duration
	// Progress is told of the bytes that passed their check, never from two
	// goroutines at once.
	Progress func(done int64)
	// OnFault is told of each fault as it happens, never from two goroutines at
	// once.
	OnFault func(Mirror, mirror.Fault)
	// Jitter returns numbers from 0 to 1 that spread retries; random ones.
	Jitter func() float64
}

// Bounds of memory and patience.
const (
	// maxBuffers is what all buffers for chunks come to at most, in bytes.
	maxBuffers = 48 << 20
	// maxChunk keeps at least three buffers within it.
	maxChunk = 16 << 20
	// maxStrikes is how often a mirror may be plainly wrong.
	maxStrikes = 3
	// goodPerStrike is how many good chunks make up for one wrong answer: one
	// bit that falls over every few hundred megabytes is not a liar.
	goodPerStrike = 16
)

func (o Options) withDefaults() Options {
	if o.Client == nil {
		o.Client = NewClient(ClientOptions{})
	}
	if o.Parallel < 1 {
		o.Parallel = 4
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 15 * time.Second
	}
	if o.GiveUp <= 0 {
		o.GiveUp = 2 * time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	if o.OnFault == nil {
		o.OnFault = func(Mirror, mirror.Fault) {}
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return o
}
