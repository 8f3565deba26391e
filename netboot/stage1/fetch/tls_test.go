package fetch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"xnodeos.org/internal/manifest"
)

// certificate is for 127.0.0.1, in the years 2030 to 2039.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// TestHTTPSWithWrongClock: a machine that woke up in 1970 fetches from a server
// whose certificate is good at the floor.
func TestHTTPSWithWrongClock(t *testing.T) {
	t.Parallel()
	r := newRelease(t, 1, 3*testChunk)
	pair, roots := certificate(t)
	server := httptest.NewUnstartedServer(r)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	server.StartTLS()
	defer server.Close()
	m, err := ParseMirror(server.URL + "/files")
	if err != nil {
		t.Fatal(err)
	}
	year := func(y int) time.Time { return time.Date(y, 6, 1, 0, 0, 0, 0, time.UTC) }
	for name, tt := range map[string]struct {
		o    ClientOptions
		want string
	}{
		"clock in the past, floor":    {ClientOptions{Roots: roots, Now: func() time.Time { return year(1970) }, Floor: year(2035)}, ""},
		"clock right, floor before":   {ClientOptions{Roots: roots, Now: func() time.Time { return year(2035) }, Floor: year(2029)}, ""},
		"clock in the past, no floor": {ClientOptions{Roots: roots, Now: func() time.Time { return year(1970) }}, "not yet valid"},
		"clock past the end":          {ClientOptions{Roots: roots, Now: func() time.Time { return year(2041) }, Floor: year(2035)}, "expired"},
		"another authority":           {ClientOptions{Roots: x509.NewCertPool(), Now: func() time.Time { return year(2035) }}, "unknown authority"},
		"no authority at all":         {ClientOptions{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			client := NewClient(tt.o)
			defer client.CloseIdleConnections()
			o := Options{Client: client, Clock: stopwatch(), GiveUp: 300 * time.Millisecond}
			_, _, err := Manifest(t.Context(), []Mirror{m}, Check{Digest: manifest.DigestOf(r.manifest)}, o)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
}
