package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"

	"xnodeos.org/internal/mirror"
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

// NewClient returns a client as package mirror makes them. A redirect from
// https:// to http:// is followed: the bytes are checked by hash either way.
func NewClient(o ClientOptions) *http.Client {
	config := &tls.Config{RootCAs: o.Roots}
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
	return mirror.NewClient(mirror.ClientOptions{TLS: config, Idle: MaxMirrors, Dial: o.Dial})
}

// errLost is why a request that another one made needless was ended.
var errLost = errors.New("another mirror was faster")

// watchdog ends a request that stalls: one timer over name look-up, connection,
// headers and body.
type watchdog struct {
	limit time.Duration
	timer *time.Timer
	since int // bytes since the timer was set
}

func newWatchdog(limit time.Duration, cancel context.CancelCauseFunc) *watchdog {
	return &watchdog{limit: limit, timer: time.AfterFunc(limit, func() { cancel(mirror.ErrStalled) })}
}

func (w *watchdog) stop() { w.timer.Stop() }

// rest lets the time begin again.
func (w *watchdog) rest() { w.timer.Reset(w.limit) }

// feed counts bytes. Drops that never make up a stream do not keep it alive.
func (w *watchdog) feed(n int) {
	if w.since += n; w.since >= mirror.StallBytes {
		w.since = 0
		w.rest()
	}
}

// get asks for bytes of a file; size is what the whole file must have, or 0
// where it is not known. The error is a *mirror.Fault.
func get(ctx context.Context, client *http.Client, r mirror.Request, size int64) (*mirror.Answer, error) {
	a, err := mirror.Get(ctx, client, r)
	if err != nil {
		return nil, err
	}
	if size > 0 && a.Size >= 0 && a.Size != size {
		a.Body.Close()
		return nil, mirror.Faultf(mirror.WrongFile, "it has %d bytes, the manifest says %d", a.Size, size)
	}
	return a, nil
}
