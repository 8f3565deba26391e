package follow

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is what travels without fragments nearly everywhere (DNS flag
	// day 2020), and more than any answer of ours needs.
	udpSize = 1232
	// maxTCP bounds an answer over TCP, in bytes.
	maxTCP = 16 << 10
)

// query is one question.
type query struct {
	name    string
	kind    uint16
	recurse bool // else the server must own the name
}

// exchange asks over UDP, and over TCP where the answer was cut. The error is a
// *Fault, also for every answer code that says nothing about the name.
func (c *Client) exchange(ctx context.Context, server string, q query) (*reply, error) {
	r, err := c.try(ctx, "udp", server, q)
	if err == nil && r.Truncated {
		r, err = c.try(ctx, "tcp", server, q)
		if err == nil && r.Truncated {
			err = &Fault{server, Malformed, errors.New("cut off over TCP as well")}
		}
	}
	switch {
	case err != nil:
		return nil, err
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		return nil, &Fault{server, Failed, fmt.Errorf("it answers %s", rcode(r.Rcode))}
	case !q.recurse && !r.Authoritative:
		return nil, &Fault{server, NotOwner, errors.New("its answer is not authoritative")}
	}
	return r, nil
}

func rcode(code int) string {
	if text, ok := dns.RcodeToString[code]; ok {
		return text
	}
	return fmt.Sprintf("code %d", code)
}

func (c *Client) try(ctx context.Context, network, server string, q query) (*reply, error) {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.kind)
	m.RecursionDesired = q.recurse
	m.SetEdns0(udpSize, false)
	m.AuthenticatedData = true // asks for the flag without the signatures (RFC 6840 section 5.7)
	m.Id = dns.Id()
	if c.ID != nil {
		m.Id = c.ID()
	}
	got, err := c.roundTrip(ctx, network, server, m)
	var known *Fault
	switch {
	case err == nil:
		return &reply{got, server, server + " over " + network}, nil
	case errors.As(err, &known):
		known.Server = server
		return nil, known
	case ctx.Err() != nil:
		return nil, &Fault{server, Silent, fmt.Errorf("no answer over %s in %v", network, timeout)}
	}
	return nil, &Fault{server, Network, err}
}

// roundTrip sends a query and returns the message that answers it. The port on
// our side is a new one each time, chosen by the kernel.
func (c *Client) roundTrip(ctx context.Context, network, server string, m *dns.Msg) (*dns.Msg, error) {
	raw, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("make the query: %w", err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // fails only once closed
	defer stop()
	if network == "tcp" {
		return stream(conn, m, raw)
	}
	return datagram(conn, m, raw)
}

// datagram reads until the answer comes. What does not fit the question is not
// believed to come from the server and does not end the wait, but is named if
// nothing else comes.
func datagram(conn net.Conn, m *dns.Msg, raw []byte) (*dns.Msg, error) {
	if _, err := conn.Write(raw); err != nil {
		return nil, err
	}
	var odd error
	buf := make([]byte, udpSize+1)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			if odd != nil {
				return nil, odd
			}
			return nil, err
		}
		got, err := judge(buf[:n], m, udpSize)
		if err == nil {
			return got, nil
		}
		odd = err
	}
}

func stream(conn net.Conn, m *dns.Msg, raw []byte) (*dns.Msg, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...)); err != nil { //nolint:gosec // a query has some 100 bytes
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, min(int(binary.BigEndian.Uint16(size[:])), maxTCP+1))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	return judge(buf, m, maxTCP)
}

// judge says whether bytes answer a query.
func judge(data []byte, m *dns.Msg, limit int) (*dns.Msg, error) {
	if len(data) > limit {
		return nil, &Fault{Kind: Oversized, Err: fmt.Errorf("more than %d bytes", limit)}
	}
	got := new(dns.Msg)
	if err := got.Unpack(data); err != nil {
		return nil, &Fault{Kind: Malformed, Err: err}
	}
	wrong := func(format string, args ...any) (*dns.Msg, error) {
		return nil, &Fault{Kind: Wrong, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case !got.Response || got.Opcode != dns.OpcodeQuery:
		return wrong("a message that is no answer")
	case got.Id != m.Id:
		return wrong("an answer to another query (id %d)", got.Id)
	case len(got.Question) != 1:
		// Some servers leave the question out of an error.
		if len(got.Question) == 0 && got.Rcode != dns.RcodeSuccess && got.Rcode != dns.RcodeNameError {
			return got, nil
		}
		return wrong("an answer to %d questions", len(got.Question))
	}
	asked, answered := m.Question[0], got.Question[0]
	if dns.CanonicalName(answered.Name) != dns.CanonicalName(asked.Name) || answered.Qtype != asked.Qtype || answered.Qclass != asked.Qclass {
		return wrong("an answer to another question (%q, type %d)", answered.Name, answered.Qtype)
	}
	return got, nil
}
