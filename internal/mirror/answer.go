package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Request says which bytes of a file to ask for.
type Request struct {
	URL string
	// From is the first byte, To the one behind the last. To 0 means up to the
	// end; both 0 ask for the file without a Range.
	From, To int64
}

// Answer is a response whose status and headers were looked at.
type Answer struct {
	Body   io.ReadCloser
	Whole  bool  // 200: the file from its first byte on, also where a range was asked for
	From   int64 // offset of the body's first byte: that of the request, or 0
	Length int64 // of the body, -1 if it was not announced
	Size   int64 // of the whole file as the server tells it, -1 if it does not
}

// StatusError is a status that brings no bytes of the file.
type StatusError struct {
	Code   int
	Status string // the status line's
	Hint   string // what it means here; may be ""
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("status %q", e.Status)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

// Get asks once. The caller closes the answer's Body. The error is a *Fault;
// behind that of a status stands a *StatusError. When the context ends before
// the answer, the fault is Stalled with the context's cause behind it: a caller
// who ends requests for other reasons looks at that cause.
func Get(ctx context.Context, client *http.Client, r Request) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return nil, &Fault{Refused, err}
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "xnodeos")
	switch {
	case r.To > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.From, r.To-1))
	case r.From > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.From))
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, classify(ctx, err)
	}
	a, fault := judge(resp, r)
	if fault != nil {
		resp.Body.Close()
		return nil, fault
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
		err = outer.Err // the URL is the server's and stands there already
	}
	if errors.Is(err, errRedirect) {
		return &Fault{Redirected, err}
	}
	return &Fault{Unreachable, err}
}

// judge looks at status and headers.
func judge(resp *http.Response, r Request) (*Answer, *Fault) {
	ranged := r.From > 0 || r.To > 0
	if fault := judgeStatus(resp, ranged); fault != nil {
		return nil, fault
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, Faultf(Encoded, "Content-Encoding is %.100q, but the file was asked for as it is", e)
	}
	if resp.StatusCode == http.StatusOK {
		return &Answer{Body: resp.Body, Whole: true, Length: resp.ContentLength, Size: resp.ContentLength}, nil
	}
	text := resp.Header.Get("Content-Range")
	got, ok := parseContentRange(text)
	if !ok {
		return nil, Faultf(WrongRange, "Content-Range is %.100q", text)
	}
	// Fewer bytes than asked for are allowed (RFC 9110, section 15.3.7); none,
	// or others, are not.
	length := got.last - got.first + 1
	if got.first != r.From || r.To > 0 && got.last >= r.To || resp.ContentLength >= 0 && resp.ContentLength != length {
		wanted := fmt.Sprintf("bytes %d-%d", r.From, r.To-1)
		if r.To == 0 {
			wanted = fmt.Sprintf("the bytes from %d on", r.From)
		}
		return nil, Faultf(WrongRange, "asked for %s, Content-Range is %.100q with a length of %d", wanted, text, resp.ContentLength)
	}
	return &Answer{Body: resp.Body, From: got.first, Length: length, Size: got.size}, nil
}

func judgeStatus(resp *http.Response, ranged bool) *Fault {
	status := &StatusError{Code: resp.StatusCode, Status: resp.Status}
	switch c := resp.StatusCode; {
	case c == http.StatusOK, c == http.StatusPartialContent && ranged:
		return nil
	case c == http.StatusRequestedRangeNotSatisfiable:
		status.Hint = "it is shorter than it should be"
		return &Fault{WrongFile, status}
	case c == http.StatusRequestTimeout, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c >= 500:
		return &Fault{Busy, status}
	}
	return &Fault{Refused, status}
}

// contentRange is a Content-Range of bytes.
type contentRange struct {
	first, last int64 // the last byte belongs to it
	size        int64 // of the whole file, -1 if it is not told
}

// parseContentRange reads "bytes 0-9/100" or "bytes 0-9/*" (RFC 9110, section
// 14.4). One of no bytes, or of bytes behind the file's end, is none.
func parseContentRange(text string) (contentRange, bool) {
	unit, rest, _ := strings.Cut(text, " ")
	part, end, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(part, "-")
	c := contentRange{parseOffset(first), parseOffset(last), -1}
	if end != "*" {
		if c.size = parseOffset(end); c.last >= c.size {
			return contentRange{}, false
		}
	}
	ok := strings.EqualFold(unit, "bytes") && c.first >= 0 && c.last >= c.first && c.last < maxOffset
	return c, ok
}

// maxOffset keeps sums of an offset and a length from running over.
const maxOffset = 1 << 62

// parseOffset returns -1 for what is not a number of digits alone.
func parseOffset(text string) int64 {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return -1
	}
	return int64(n)
}
