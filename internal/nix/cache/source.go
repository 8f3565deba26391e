package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// source is where a cache's files come from. open returns the bytes of a file
// from an offset on, or perhaps from an earlier one (see answer.from). name is
// relative and clean. Errors are ErrNotFound or a *Fault.
type source interface {
	open(ctx context.Context, name string, from int64) (*answer, error)
}

// answer is a file that is being read.
type answer struct {
	body io.ReadCloser
	from int64 // offset of the first byte of body: what was asked for, or 0
	size int64 // of the whole file as the cache tells it, -1 if it does not
}

func open(text string, client *http.Client) (*Cache, error) {
	if !strings.Contains(text, "://") {
		if text == "" {
			return nil, errors.New("a cache without a name; want a URL like https://cache.example.org or a folder")
		}
		dir, err := filepath.Abs(text)
		if err != nil {
			return nil, fmt.Errorf("cache %q: %w", text, err)
		}
		return &Cache{name: dir, source: folder(dir)}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		// The parser's message repeats the text.
		return nil, fmt.Errorf("cache %q is not a URL; want one like https://cache.example.org", text)
	}
	switch {
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf(`cache %q: "?" and "#" are not allowed; want the URL of a folder`, u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("cache %q: user and password are not allowed in it; every user of the node could read them", u.Redacted())
	case u.Scheme == "file" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return &Cache{name: text, source: folder(filepath.Clean(u.Path))}, nil
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Opaque != "":
		return nil, fmt.Errorf("cache %q: want http:// or https:// and a host, file:// and an absolute folder, or a folder", text)
	}
	if client == nil {
		client = NewClient(ClientOptions{})
	}
	return &Cache{name: text, source: &server{base: u.JoinPath("/"), client: client}}, nil
}

// folder is a cache on this machine.
type folder string

// local says whether the cache is a folder of this machine.
func (c *Cache) local() bool {
	_, ok := c.source.(folder)
	return ok
}

func (d folder) open(_ context.Context, name string, from int64) (*answer, error) {
	f, err := os.OpenInRoot(string(d), name) // no symlink leads out of the cache
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(string(d)); err != nil {
			return nil, faultf(Unreachable, "%w", err)
		}
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, &Fault{Refused, err}
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", name)
	}
	if err == nil {
		_, err = f.Seek(from, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, &Fault{Refused, err}
	}
	return &answer{body: f, from: from, size: st.Size()}, nil
}

// server is a cache over HTTP.
type server struct {
	base   *url.URL
	client *http.Client
}

func (s *server) open(ctx context.Context, name string, from int64) (*answer, error) {
	path, query, _ := strings.Cut(name, "?")
	u := s.base.JoinPath(path)
	u.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, faultf(Refused, "%w", err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "xnodeos")
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, classify(ctx, err)
	}
	a, err := judge(resp, from)
	if err != nil {
		resp.Body.Close()
		return nil, err
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
		err = outer.Err // the URL is the cache's and stands there already
	}
	if errors.Is(err, errRedirect) {
		return &Fault{Redirected, err}
	}
	return &Fault{Unreachable, err}
}

// judge looks at status and headers. Sizes are kept as what the cache says, not
// as a truth.
func judge(resp *http.Response, from int64) (*answer, error) {
	if err := judgeStatus(resp); err != nil {
		return nil, err
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, faultf(Encoded, "Content-Encoding is %q, but the file was asked for as it is", e)
	}
	if resp.StatusCode == http.StatusOK {
		return &answer{body: resp.Body, size: resp.ContentLength}, nil
	}
	var first, last int64
	text := resp.Header.Get("Content-Range")
	head, end, ok := strings.Cut(text, "/")
	n, err := fmt.Sscanf(head, "bytes %d-%d", &first, &last)
	if !ok || n != 2 || err != nil || first != from || last < first {
		return nil, faultf(WrongRange, "asked for the bytes from %d on, Content-Range is %.100q", from, text)
	}
	a := &answer{body: resp.Body, from: from, size: -1}
	if n, err := fmt.Sscanf(end, "%d", &a.size); n != 1 || err != nil {
		a.size = -1
	}
	return a, nil
}

func judgeStatus(resp *http.Response) error {
	switch c := resp.StatusCode; {
	case c == http.StatusOK:
		return nil
	case c == http.StatusPartialContent && resp.Request.Header.Get("Range") != "":
		return nil
	case c == http.StatusNotFound, c == http.StatusGone, c == http.StatusForbidden: // a bucket that may not be listed says 403
		return ErrNotFound
	case c == http.StatusRequestedRangeNotSatisfiable:
		return faultf(WrongFile, "status %q: it is shorter than it was before", resp.Status)
	case c == http.StatusRequestTimeout, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c >= 500:
		return faultf(Busy, "status %q", resp.Status)
	}
	return faultf(Refused, "status %q", resp.Status)
}
