package cache

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"

	"xnodeos.org/internal/mirror"
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

// maxIdle is how many connections to one host are kept: as many as work at a time.
const maxIdle = 32

// NewClient returns a client as package mirror makes them, that believes only
// servers it can identify and never leaves them for http://.
func NewClient(o ClientOptions) *http.Client {
	return mirror.NewClient(mirror.ClientOptions{
		TLS: &tls.Config{RootCAs: o.Roots, Time: o.Now}, KeepTLS: true, Idle: maxIdle, Dial: o.Dial,
	})
}
