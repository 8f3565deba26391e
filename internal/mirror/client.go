package mirror

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ClientOptions make the HTTP client. The zero value of each field is the
// default that its comment names.
type ClientOptions struct {
	// TLS says whom to believe and at what time; the system's authorities and
	// clock. Versions before 1.2 are refused, whatever it says.
	TLS *tls.Config
	// KeepTLS refuses redirects from https:// to http://; they are followed.
	KeepTLS bool
	// Idle is how many connections to one host are kept for the next request;
	// net/http's number.
	Idle int
	// Dial opens connections; TCP with a limit of 10 seconds.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Bounds of what a server may do before the first byte of its answer counts.
const (
	dialLimit    = 10 * time.Second
	maxHeader    = 64 << 10
	maxRedirects = 5
)

// NewClient returns a client that asks nobody else (no proxy of the
// environment), follows few redirects and unpacks nothing. It has no limit of
// time for a whole request: contexts and whoever measures stalls have that.
func NewClient(o ClientOptions) *http.Client {
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialLimit}).DialContext
	}
	config := &tls.Config{}
	if o.TLS != nil {
		config = o.TLS.Clone()
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            o.Dial,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    dialLimit,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 only
			DisableCompression:     true,
			MaxIdleConnsPerHost:    o.Idle,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: o.checkRedirect,
	}
}

// errRedirect is in the chain of every refusal of a redirect.
var errRedirect = errors.New("redirect refused")

func (o ClientOptions) checkRedirect(next *http.Request, before []*http.Request) error {
	if next.URL.Scheme != "http" && next.URL.Scheme != "https" {
		return fmt.Errorf("%w: to %q; want http:// or https://", errRedirect, next.URL.Redacted())
	}
	if o.KeepTLS && before[0].URL.Scheme == "https" && next.URL.Scheme == "http" {
		return fmt.Errorf("%w: from https:// to %q", errRedirect, next.URL.Redacted())
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
