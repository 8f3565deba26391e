package mirror

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNewClient: it asks with nothing that the server could use against us.
func TestNewClient(t *testing.T) {
	t.Parallel()
	c := NewClient(ClientOptions{TLS: &tls.Config{MinVersion: tls.VersionTLS10}, Idle: 7})
	transport, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the transport is a %T", c.Transport)
	}
	if transport.Proxy != nil || !transport.DisableCompression || transport.ForceAttemptHTTP2 || transport.TLSNextProto == nil ||
		transport.TLSClientConfig.MinVersion != tls.VersionTLS12 || transport.MaxIdleConnsPerHost != 7 {
		t.Errorf("the transport is %+v", transport)
	}
}

// TestRedirects: where redirects may lead, and how far.
func TestRedirects(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	lead := func(from, to string) {
		mux.HandleFunc(from, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		})
	}
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secret := httptest.NewTLSServer(mux)
	defer secret.Close()
	mux.HandleFunc("/end", func(http.ResponseWriter, *http.Request) {})
	lead("/5", "/4")
	lead("/4", "/3")
	lead("/3", "/2")
	lead("/2", "/1")
	lead("/1", "/end")
	lead("/6", "/5")
	lead("/a", "/b")
	lead("/b", "/a")
	lead("/disk", "file:///etc/passwd")
	lead("/plain", plain.URL+"/end")
	lead("/secret", secret.URL+"/end")
	roots := &tls.Config{RootCAs: secret.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	for _, c := range []struct {
		url  string
		keep bool
		want string // of the fault; "" if it is followed
	}{
		{plain.URL + "/5", false, ""},
		{plain.URL + "/6", false, "more than 5"},
		{plain.URL + "/a", false, "a loop by"},
		{plain.URL + "/disk", false, "want http:// or https://"},
		{plain.URL + "/secret", true, ""},
		{secret.URL + "/plain", false, ""},
		{secret.URL + "/plain", true, "from https:// to"},
		{secret.URL + "/5", true, ""},
	} {
		client := NewClient(ClientOptions{TLS: roots, KeepTLS: c.keep})
		a, err := Get(t.Context(), client, Request{URL: c.url})
		if err == nil {
			a.Body.Close()
		}
		client.CloseIdleConnections()
		var fault *Fault
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &fault) || fault.Kind != Redirected || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, KeepTLS %t: %v; want %q", c.url, c.keep, err, c.want)
		}
	}
}

// TestUnreachable: nobody answers, or with more than is read.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	chatty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
	}))
	defer chatty.Close()
	for _, url := range []string{gone.URL, chatty.URL} {
		client := NewClient(ClientOptions{})
		_, err := Get(t.Context(), client, Request{URL: url})
		client.CloseIdleConnections()
		var fault *Fault
		if !errors.As(err, &fault) || fault.Kind != Unreachable || strings.Contains(err.Error(), url) {
			t.Errorf("%v; want Unreachable, without the URL that the report names", err)
		}
	}
}
