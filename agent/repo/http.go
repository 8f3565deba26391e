package repo

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	maxRedirects = 5
	maxHeaders   = 64 << 10 // bytes of an HTTP answer's headers
	infoRefs     = "/info/refs"
	service      = "git-upload-pack"
)

// httpSession speaks git's smart HTTP protocol (gitprotocol-http(5)).
type httpSession struct {
	transport *http.Transport
	origin    *url.URL // as configured, with the credentials
	base      *url.URL // where the server really is, after redirects; no credentials
	left      bool     // a redirect has left the origin: no credentials any more
	open      io.Closer
}

func newHTTP(attempt context.Context, m *meter, opt Options, rem *remote) *wire {
	base := *rem.url
	base.User = nil
	return &wire{session: &httpSession{
		origin: rem.url,
		base:   &base,
		transport: &http.Transport{
			Proxy: opt.Proxy,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return m.dial(ctx, attempt, network, address)
			},
			TLSClientConfig:        &tls.Config{RootCAs: opt.RootCAs, MinVersion: tls.VersionTLS12},
			DisableCompression:     true, // a compressed answer would not be bounded by what is received
			MaxResponseHeaderBytes: maxHeaders,
		},
	}}
}

// advertisement follows redirects by hand: http.Client would send credentials
// to every subdomain and follow from https to http.
func (s *httpSession) advertisement(ctx context.Context) (io.Reader, error) {
	at := *s.base
	at.Path += infoRefs
	at.RawQuery = "service=" + service
	for range maxRedirects + 1 {
		answer, err := s.do(ctx, http.MethodGet, &at, nil)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode/100 != 3 {
			if err := s.accept(answer, "application/x-git-upload-pack-advertisement"); err != nil {
				return nil, err
			}
			at.Path, at.RawQuery = strings.TrimSuffix(at.Path, infoRefs), ""
			s.base = &at
			return s.skipService(answer.Body)
		}
		answer.Body.Close()
		if err := s.redirect(&at, answer.Header.Get("Location")); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d redirects", maxRedirects)
}

// redirect moves at to where a redirect points.
func (s *httpSession) redirect(at *url.URL, location string) error {
	next, err := at.Parse(location)
	switch {
	case err != nil || location == "":
		return fmt.Errorf("redirect to %.100q, which is no URL", location)
	case next.Scheme != "https" && next.Scheme != at.Scheme:
		return fmt.Errorf("refusing the redirect from %s to %s", at.Scheme, next.Scheme)
	case !strings.HasSuffix(next.Path, infoRefs) || next.RawQuery != at.RawQuery || next.Host == "":
		return fmt.Errorf("redirect to %.100q, which is no git repository (its path must end in %s)", next.Redacted(), infoRefs)
	}
	next.User, next.Fragment = nil, ""
	*at = *next
	s.left = s.left || !sameOrigin(s.origin, at)
	return nil
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" {
			return p
		}
		return map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// skipService reads the packets that only HTTP has before the list of refs:
// the service's name and a flush.
func (s *httpSession) skipService(body io.Reader) (io.Reader, error) {
	want := []byte("001e# service=" + service + "\n0000")
	got := make([]byte, len(want))
	n, err := io.ReadFull(body, got)
	if err != nil && n == 0 {
		return nil, fmt.Errorf("read the server's list of refs: %w", err)
	}
	if !bytes.Equal(got, want) {
		return nil, fmt.Errorf("the server's list of refs begins with %.60q; is this a git repository?", got[:n])
	}
	return body, nil
}

func (s *httpSession) request(ctx context.Context, body []byte) (io.Reader, error) {
	at := *s.base
	at.Path += "/" + service
	answer, err := s.do(ctx, http.MethodPost, &at, body) //nolint:bodyclose // Close and the next request do
	if err != nil {
		return nil, err
	}
	if err := s.accept(answer, "application/x-git-upload-pack-result"); err != nil {
		return nil, err
	}
	return answer.Body, nil
}

func (s *httpSession) do(ctx context.Context, method string, at *url.URL, body []byte) (*http.Response, error) {
	s.closeBody()
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %q: no proper address", method, at.Redacted())
	}
	req.Header.Set("User-Agent", "git/xnode") // some servers answer browsers otherwise
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		req.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	if password, ok := s.origin.User.Password(); s.origin.User != nil && !s.left {
		if !ok {
			password = ""
		}
		req.SetBasicAuth(s.origin.User.Username(), password)
	}
	answer, err := s.transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", method, at.Redacted(), err)
	}
	s.open = answer.Body
	return answer, nil
}

// accept refuses what is no good answer, with the beginning of a plain error
// page.
func (s *httpSession) accept(answer *http.Response, kind string) error {
	at := answer.Request.URL.Redacted()
	switch {
	case answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%q: %s; give a user and password or token in the remote's URL that may read it", at, answer.Status)
	case answer.StatusCode != http.StatusOK:
		const most = 200
		text := ""
		if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") {
			page, err := io.ReadAll(io.LimitReader(answer.Body, most))
			if err == nil {
				text = fmt.Sprintf("; it said %q", bytes.TrimSpace(page))
			}
		}
		return fmt.Errorf("%q: %s%s", at, answer.Status, text)
	case answer.Header.Get("Content-Type") != kind:
		return fmt.Errorf("%q: answered with %.60q, want %q; is this a git repository behind smart HTTP?", at, answer.Header.Get("Content-Type"), kind)
	case answer.Header.Get("Content-Encoding") != "":
		return errors.New("the answer is compressed, which was not asked for")
	}
	return nil
}

func (s *httpSession) closeBody() {
	if s.open != nil {
		s.open.Close()
		s.open = nil
	}
}

func (s *httpSession) Close() error {
	s.closeBody()
	s.transport.CloseIdleConnections()
	return nil
}
