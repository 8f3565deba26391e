package cache

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ClientOptions make the HTTP client. The zero value is good.
type ClientOptions struct {
	// Roots check certificates; the system's if nil.
	Roots *x509.CertPool
	// Now judges the dates of certificates; the machine's clock if nil. A
	// machine without a battery wakes up in the past: give it a floor here.
	Now func() time.Time
	// Dial opens connections; the default is TCP with a limit of 10 seconds.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Bounds of what a server may do before the first byte of its answer counts.
const (
	dialLimit    = 10 * time.Second
	maxHeader    = 64 << 10
	maxRedirects = 5
	maxIdle      = 32 // connections kept to one host: as many as work at a time
)

// NewClient returns a client that asks nobody else (no proxy of the
// environment), follows few redirects and unpacks nothing.
func NewClient(o ClientOptions) *http.Client {
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialLimit}).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            o.Dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots, Time: o.Now},
			TLSHandshakeTimeout:    dialLimit,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 only
			DisableCompression:     true,
			MaxIdleConnsPerHost:    maxIdle,
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
	if before[0].URL.Scheme == "https" && next.URL.Scheme == "http" {
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
