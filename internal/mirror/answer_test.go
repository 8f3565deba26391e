package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// canned answers every request with one response, and keeps the request.
type canned struct {
	resp  http.Response
	asked *http.Request
}

func (c *canned) RoundTrip(req *http.Request) (*http.Response, error) {
	c.asked = req
	resp := c.resp
	resp.Request, resp.Body = req, http.NoBody
	return &resp, nil
}

// TestGet: answers of servers, by status and headers.
func TestGet(t *testing.T) {
	t.Parallel()
	all, tail, middle := Request{}, Request{From: 5}, Request{From: 5, To: 7}
	for _, c := range []struct {
		ask    Request
		status int
		header string // one of them
		length int64
		want   string // kind of fault, or the answer
	}{
		{all, 200, "", 7, "true 0 7 7"},
		{all, 200, "", -1, "true 0 -1 -1"},
		{all, 200, "Content-Encoding: gzip", 7, "encoded"},
		{all, 200, "Content-Encoding: Identity", 7, "true 0 7 7"},
		{all, 200, "Content-Range: bytes 5-6/7", 7, "true 0 7 7"},
		{all, 206, "Content-Range: bytes 0-6/7", 7, "refused"}, // nobody asked for a range
		{tail, 200, "", 7, "true 0 7 7"},                       // it ignores Range
		{tail, 206, "Content-Range: bytes 5-6/7", 2, "false 5 2 7"},
		{tail, 206, "Content-Range: bytes 5-6/*", -1, "false 5 2 -1"},
		{tail, 206, "Content-Range: bytes 4-6/7", 3, "wrong range"},
		{tail, 206, "Content-Range: bytes 6-6/7", 1, "wrong range"},
		{tail, 206, "Content-Range: bytes 5-4/7", 0, "wrong range"},
		{tail, 206, "Content-Range: bytes 5-6/7", 7, "wrong range"}, // the length is another
		{tail, 206, "Content-Range: lines 5-6/7", 2, "wrong range"},
		{tail, 206, "", 2, "wrong range"},
		{tail, 206, "Content-Encoding: gzip", 2, "encoded"},
		{middle, 206, "Content-Range: bytes 5-6/9", 2, "false 5 2 9"},
		{middle, 206, "Content-Range: bytes 5-5/9", 1, "false 5 1 9"}, // fewer are allowed
		{middle, 206, "Content-Range: bytes 5-7/9", 3, "wrong range"}, // more are not
		{middle, 206, "Content-Range: bytes 4-6/9", 3, "wrong range"},
		{middle, 200, "", 9, "true 0 9 9"},
		{tail, 416, "", 0, "wrong file"},
		{all, 404, "", 0, "refused"}, {all, 401, "", 0, "refused"}, {all, 204, "", 0, "refused"}, {all, 300, "", 0, "refused"},
		{all, 408, "", 0, "busy"}, {all, 425, "", 0, "busy"}, {all, 429, "", 0, "busy"}, {all, 500, "", 0, "busy"}, {all, 503, "", 0, "busy"},
	} {
		server := &canned{resp: http.Response{StatusCode: c.status, Status: strconv.Itoa(c.status), Header: http.Header{}, ContentLength: c.length}}
		if key, value, ok := strings.Cut(c.header, ": "); ok {
			server.resp.Header.Set(key, value)
		}
		c.ask.URL = "http://192.0.2.1/x"
		a, err := Get(t.Context(), &http.Client{Transport: server}, c.ask)
		got := ""
		var fault *Fault
		if errors.As(err, &fault) {
			got = string(fault.Kind)
		} else if err == nil {
			a.Body.Close()
			got = fmt.Sprint(a.Whole, a.From, a.Length, a.Size)
		}
		if got != c.want {
			t.Errorf("Get(%+v) of %d %q, length %d: %s (%v); want %s", c.ask, c.status, c.header, c.length, got, err, c.want)
		}
		var status *StatusError
		byStatus := map[string]bool{"refused": true, "busy": true, "wrong file": true}[c.want]
		if is := errors.As(err, &status); is != byStatus {
			t.Errorf("%v of %d is a *StatusError: %t; want %t", err, c.status, is, byStatus)
		} else if is && status.Code != c.status {
			t.Errorf("the *StatusError of %d says %d", c.status, status.Code)
		}
	}
}

func TestGetAsks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ask  Request
		want string // Range
	}{
		{Request{}, ""},
		{Request{From: 1}, "bytes=1-"},
		{Request{To: 10}, "bytes=0-9"},
		{Request{From: 5, To: 10}, "bytes=5-9"},
	} {
		server := &canned{resp: http.Response{StatusCode: http.StatusServiceUnavailable}}
		c.ask.URL = "http://192.0.2.1/x"
		if _, err := Get(t.Context(), &http.Client{Transport: server}, c.ask); err == nil {
			t.Fatal("503 is taken for an answer")
		}
		h := server.asked.Header
		if h.Get("Range") != c.want || h.Get("Accept-Encoding") != "identity" || h.Get("User-Agent") != "xnodeos" {
			t.Errorf("Get(%+v) asks with %v; want Range %q", c.ask, h, c.want)
		}
	}
}

// TestGetEnds: who ended a request can be told by the cause.
func TestGetEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	mine := errors.New("mine")
	cancel(mine)
	_, err := Get(ctx, NewClient(ClientOptions{}), Request{URL: "http://192.0.2.1/"})
	var fault *Fault
	if !errors.As(err, &fault) || fault.Kind != Stalled || !errors.Is(err, mine) {
		t.Errorf("Get = %v; want Stalled by the context's cause", err)
	}
	if _, err := Get(t.Context(), NewClient(ClientOptions{}), Request{URL: "http://a b/"}); !errors.As(err, &fault) || fault.Kind != Refused {
		t.Errorf("Get = %v; want Refused for what is no URL", err)
	}
}

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]contentRange{
		"bytes 0-0/1":                   {0, 0, 1},
		"Bytes 10-19/100":               {10, 19, 100},
		"bytes 10-19/*":                 {10, 19, -1},
		"bytes 0-4611686018427387903/*": {0, maxOffset - 1, -1},
	} {
		if got, ok := parseContentRange(text); !ok || got != want {
			t.Errorf("parseContentRange(%q) = %v, %t; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "bytes", "bytes ", "bytes 1", "bytes 1-", "bytes 1-2", "bytes 1-2/", "bytes -2/5", "bytes 1-2/x", "bytes 1-2x/5", "bytes 2-1/5",
		"bytes 1-5/5", "bytes */5", "bytes +1-2/5", "bytes -1-2/5", "bytes 1--2/5", "bytes 1-2/-5", "bytes 1-2/5 ", "bytes  1-2/5", "bytes 1-2/5/6",
		"bytes=1-2/5", "lines 1-2/5", "bytes 0-4611686018427387904/*", "bytes 0-99999999999999999999/*", "bytes 0-1/99999999999999999999",
	} {
		if got, ok := parseContentRange(text); ok {
			t.Errorf("parseContentRange(%q) = %v; want none", text, got)
		}
	}
}

// FuzzContentRange: what is taken says what it was read from, and is a part of a file.
func FuzzContentRange(f *testing.F) {
	f.Add("bytes 10-19/100")
	f.Add("bytes 10-12/*")
	f.Add("bytes -1-9223372036854775807/100")
	f.Add("BYTES 007-8/0009")
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := parseContentRange(text)
		if !ok {
			return
		}
		if c.first < 0 || c.last < c.first || c.last-c.first+1 < 1 || c.size >= 0 && c.last >= c.size {
			t.Fatalf("parseContentRange(%q) = %+v", text, c)
		}
		end := "*"
		if c.size >= 0 {
			end = strconv.FormatInt(c.size, 10)
		}
		if again, ok := parseContentRange(fmt.Sprintf("bytes %d-%d/%s", c.first, c.last, end)); !ok || again != c {
			t.Fatalf("%q: %+v, again %+v", text, c, again)
		}
	})
}
