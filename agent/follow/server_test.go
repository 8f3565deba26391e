package follow

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// script is what a server of the test does: the packets with which it answers
// a query, none for silence.
type script func(q *dns.Msg, network string) [][]byte

// serve starts a server that says whatever its script says, over UDP and TCP
// on one port.
func serve(t testing.TB, do script) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		u.Close()
		group.Wait()
	})
	group.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, packet := range run(do, buf[:n], "udp") {
				u.WriteTo(packet, from)
			}
		}
	})
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(time.Minute))
				var size [2]byte
				if _, err := io.ReadFull(conn, size[:]); err != nil {
					return
				}
				raw := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(conn, raw); err != nil {
					return
				}
				for _, packet := range run(do, raw, "tcp") {
					conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...))
				}
				io.Copy(io.Discard, conn) // until the client has had enough
			})
		}
	})
	return l.Addr().String()
}

func run(do script, raw []byte, network string) [][]byte {
	q := new(dns.Msg)
	if err := q.Unpack(raw); err != nil || len(q.Question) != 1 {
		return nil
	}
	return do(q, network)
}

// say answers with records of the zone file's form; "@" is the name asked for.
func say(change func(*dns.Msg), lines ...string) script {
	return func(q *dns.Msg, _ string) [][]byte {
		return [][]byte{answer(q, change, lines...)}
	}
}

func answer(q *dns.Msg, change func(*dns.Msg), lines ...string) []byte {
	m := new(dns.Msg).SetReply(q)
	for _, line := range lines {
		rr, err := dns.NewRR(strings.Replace(line, "@", q.Question[0].Name, 1))
		if err != nil {
			panic("BUG: test record " + line + ": " + err.Error())
		}
		if rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	if change != nil {
		change(m)
	}
	raw, err := m.Pack()
	if err != nil {
		panic("BUG: test answer: " + err.Error())
	}
	return raw
}

// txt is the line of a TXT record, its text cut into strings.
func txt(parts ...string) string {
	return `@ 60 IN TXT "` + strings.Join(parts, `" "`) + `"`
}
