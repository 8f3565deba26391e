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

	"xnodeos.org/internal/mirror"
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
			return nil, mirror.Faultf(mirror.Unreachable, "%w", err)
		}
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, &mirror.Fault{Kind: mirror.Refused, Err: err}
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
		return nil, &mirror.Fault{Kind: mirror.Refused, Err: err}
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
	a, err := mirror.Get(ctx, s.client, mirror.Request{URL: u.String(), From: from})
	var status *mirror.StatusError
	if errors.As(err, &status) {
		switch status.Code {
		case http.StatusNotFound, http.StatusGone, http.StatusForbidden: // a bucket that may not be listed says 403
			return nil, ErrNotFound
		}
	}
	if err != nil {
		return nil, err
	}
	return &answer{body: a.Body, from: a.From, size: a.Size}, nil
}
