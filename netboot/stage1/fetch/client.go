package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ClientOptions make the HTTP client. The zero value is good for an initramfs.
type ClientOptions struct {
	// Roots check certificates. Without roots any certificate is taken, which
	// hides the request from those who only listen: what comes back is checked
	// by hash either way.
	Roots *x509.CertPool
	// Now and Floor judge the dates of certificates: whichever is later. A
	// machine without a battery wakes up in the past. Now is needed with Roots.
	Now   func() time.Time
	Floor time.Time
	// Dial opens connections; the default is TCP with a limit of 10 seconds.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Bounds of what a server may do before the first byte of its answer counts.
const (
	dialLimit    = 10 * time.Second
	maxHeader    = 64 << 10
	maxRedirects = 5
)

// NewClient returns a client that asks nobody else (no proxy of the
// environment), follows few redirects and unpacks nothing.
func NewClient(o ClientOptions) *http.Client {
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialLimit}).DialContext
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots}
	if o.Roots == nil {
		config.InsecureSkipVerify = true // see ClientOptions.Roots
	} else {
		config.Time = func() time.Time {
			if now := o.Now(); now.After(o.Floor) {
				return now
			}
			return o.Floor
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            o.Dial,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    dialLimit,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 only
			DisableCompression:     true,
			MaxIdleConnsPerHost:    MaxMirrors,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: checkRedirect,
	}
}

// errRedirect is in the chain of every refusal of a redirect.
var errRedirect = errors.New("redirect refused")

func checkRedirect(next *http.Request, before []*http.Request) error {
	if next.URL.Scheme != "http" && next.URL.Scheme != "https" {
		return fmt.Errorf("%w: to %q; want http:// or https://", errRedirect, next.URL.Redacted())
	}
	for _, r := range before {
		if r.URL.String() == next.URL.String() {
			return fmt.Errorf("%w: a loop by %q", errRedirect, next.URL.Redacted())
		}
	}
	if len(before) > maxRedirects {
		return fmt.Errorf("%w: more than %d, the last to %q", errRedirect, maxRedirects, next.URL.Redacted())
	}
	return nil
}

// Why a request of ours was ended by us.
var (
	errStalled = errors.New("next to no bytes came in time")
	errLost    = errors.New("another mirror was faster")
)

// watchdog ends a request that stalls: one timer over name look-up, connection,
// headers and body.
type watchdog struct {
	limit time.Duration
	timer *time.Timer
	since int // bytes since the timer was set
}

func newWatchdog(limit time.Duration, cancel context.CancelCauseFunc) *watchdog {
	return &watchdog{limit: limit, timer: time.AfterFunc(limit, func() { cancel(errStalled) })}
}

func (w *watchdog) stop() { w.timer.Stop() }

// rest lets the time begin again.
func (w *watchdog) rest() { w.timer.Reset(w.limit) }

// feed counts bytes. Drops that never make up a stream do not keep it alive.
func (w *watchdog) feed(n int) {
	if w.since += n; w.since >= stallBytes {
		w.since = 0
		w.rest()
	}
}

// answer is a response whose headers were looked at.
type answer struct {
	body   io.ReadCloser
	whole  bool  // 200: from the first byte of the file on
	from   int64 // first byte
	length int64 // -1 if it was not announced
}

// get asks for bytes of a file, from..to without to; to 0 asks without Range.
// size is what the whole file must have, or 0 where it is not known. The error
// is a *Fault.
func get(ctx context.Context, client *http.Client, address string, from, to, size int64) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, faultf(Refused, "%w", err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "xnodeos")
	if to > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, classify(ctx, err)
	}
	a, fault := judge(resp, from, to, size)
	if fault != nil {
		resp.Body.Close()
		return nil, fault
	}
	return a, nil
}

// classify tells the faults that come as errors apart.
func classify(ctx context.Context, err error) *Fault {
	if cause := context.Cause(ctx); cause != nil {
		return &Fault{Stalled, cause}
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // the URL is the mirror's and stands there already
	}
	if errors.Is(err, errRedirect) {
		return &Fault{Redirected, err}
	}
	return &Fault{Unreachable, err}
}

// judge looks at status and headers.
func judge(resp *http.Response, from, to, size int64) (*answer, *Fault) {
	if fault := judgeStatus(resp); fault != nil {
		return nil, fault
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, faultf(Encoded, "Content-Encoding is %q, but the file was asked for as it is", e)
	}
	a := &answer{body: resp.Body, length: resp.ContentLength}
	if resp.StatusCode == http.StatusOK {
		if size > 0 && a.length >= 0 && a.length != size {
			return nil, faultf(WrongFile, "it has %d bytes, the manifest says %d", a.length, size)
		}
		a.whole = true
		return a, nil
	}
	var first, last, total int64
	text := resp.Header.Get("Content-Range")
	head, end, ok := strings.Cut(text, "/")
	if n, err := fmt.Sscanf(head, "bytes %d-%d", &first, &last); !ok || n != 2 || err != nil {
		return nil, faultf(WrongRange, "Content-Range is %q", text)
	}
	if end != "*" {
		if n, err := fmt.Sscanf(end, "%d", &total); n != 1 || err != nil {
			return nil, faultf(WrongRange, "Content-Range is %q", text)
		}
		if total != size {
			return nil, faultf(WrongFile, "it has %d bytes, the manifest says %d", total, size)
		}
	}
	// Fewer bytes than asked for are allowed (RFC 9110, section 15.3.7); none,
	// or others, are not.
	if first != from || last < first || last >= to || a.length >= 0 && a.length != last-first+1 {
		return nil, faultf(WrongRange, "asked for bytes %d-%d, Content-Range is %q with a length of %d", from, to-1, text, a.length)
	}
	a.from, a.length = first, last-first+1
	return a, nil
}

func judgeStatus(resp *http.Response) *Fault {
	switch c := resp.StatusCode; {
	case c == http.StatusOK:
		return nil
	case c == http.StatusPartialContent && resp.Request.Header.Get("Range") != "":
		return nil
	case c == http.StatusRequestedRangeNotSatisfiable:
		return faultf(WrongFile, "status %q: it is shorter than the manifest says", resp.Status)
	case c == http.StatusRequestTimeout, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c >= 500:
		return faultf(Busy, "status %q", resp.Status)
	}
	return faultf(Refused, "status %q", resp.Status)
}
