package daemon_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/daemon"
)

// words builds what a daemon says: uint64 for numbers, string for texts.
func words(all ...any) []byte {
	var b []byte
	for _, w := range all {
		switch w := w.(type) {
		case int:
			b = binary.LittleEndian.AppendUint64(b, uint64(w))
		case string:
			b = binary.LittleEndian.AppendUint64(b, uint64(len(w)))
			b = append(append(b, w...), make([]byte, -len(w)&7)...)
		}
	}
	return b
}

const (
	hello = 0x6478696f
	v34   = 1<<8 | 34
	last  = 0x616c7473
	fail  = 0x63787470
	next  = 0x6f6c6d67
	start = 0x53545254
	stop  = 0x53544f50
	told  = 0x52534c54
)

// script is a daemon that says what it was told to say, whatever it hears.
type script struct{ io.Reader }

func (script) Write(p []byte) (int, error) { return len(p), nil }
func (script) Close() error                { return nil }

func ask(t testing.TB, said []byte) (info nix.PathInfo, valid map[string]bool, err error) {
	c, err := daemon.New(t.Context(), script{bytes.NewReader(said)}, daemon.Options{})
	if err != nil {
		return info, nil, err
	}
	defer c.Close()
	if info, err = c.PathInfo(t.Context(), "/nix/store/11111111111111111111111111111111-a"); err != nil {
		return info, nil, err
	}
	valid, err = c.Valid(t.Context(), []string{info.Path})
	return info, valid, err
}

const hash64 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

var greeting = words(hello, v34, last)

// aPath is a valid answer about a path, with every kind of report before it.
var aPath = words(next, "building\n", start, 1, 2, 3, "x", 2, 0, 7, 1, "field", 0, told, 1, 2, 0, stop, 1, last,
	1, "", hash64, 1, "/nix/store/22222222222222222222222222222222-b", 5, 120, 0, 1, "k:sig", "",
	last, 1, "/nix/store/11111111111111111111111111111111-a")

func TestScript(t *testing.T) {
	t.Parallel()
	info, valid, err := ask(t, append(greeting[:len(greeting):len(greeting)], aPath...))
	if err != nil || info.NarSize != 120 || info.NarHash.Hex() != hash64 || len(info.References) != 1 || !valid[info.Path] {
		t.Errorf("got %+v, %v, %v", info, valid, err)
	}
}

func TestScriptRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		said []byte
		want error
		text string
	}{
		"nothing":            {nil, daemon.ErrClosed, ""},
		"not a daemon":       {[]byte("HTTP/1.1 400 Bad Request\r\n"), daemon.ErrProtocol, "socket"},
		"too old":            {words(hello, 1<<8|21, last), daemon.ErrProtocol, "1.21"},
		"version 2":          {words(hello, 2<<8|30, last), daemon.ErrProtocol, "2.30"},
		"refused at once":    {words(hello, v34, fail, "user 'x' is not allowed", 1), nil, "not allowed"},
		"cut in the answer":  {words(hello, v34, last, last, 1, "", hash64), daemon.ErrClosed, ""},
		"huge text":          {words(hello, v34, last, last, 1, 1<<40), daemon.ErrProtocol, "bytes"},
		"huge list":          {words(hello, v34, last, last, 1, "", hash64, 1<<40), daemon.ErrProtocol, "list"},
		"huge size":          {words(hello, v34, last, last, 1, "", hash64, 0, 5, -1, 0, 0, ""), daemon.ErrProtocol, "NAR"},
		"hash":               {words(hello, v34, last, last, 1, "", "sha1:00", 0, 5, 1, 0, 0, ""), daemon.ErrProtocol, "hash"},
		"reference":          {words(hello, v34, last, last, 1, "", hash64, 1, "/etc/passwd", 5, 1, 0, 0, ""), daemon.ErrProtocol, "passwd"},
		"truth of 2":         {words(hello, v34, last, last, 2), daemon.ErrProtocol, "truth"},
		"unknown word":       {words(hello, v34, last, 0x1234), daemon.ErrProtocol, "0x1234"},
		"wants data":         {words(hello, v34, last, 0x64617461, 5), daemon.ErrProtocol, "data"},
		"many fields":        {words(hello, v34, last, told, 1, 1, 1<<30), daemon.ErrProtocol, "fields"},
		"strange field":      {words(hello, v34, last, told, 1, 1, 1, 7), daemon.ErrProtocol, "type 7"},
		"padding":            {append(words(hello, v34, last, next, 1), "x1111111"...), daemon.ErrProtocol, "padding"},
		"an error in colour": {words(hello, v34, last, fail, "\x1b[31;1merror:\x1b[0m path\n is \x07bad", 1), nil, "nix-daemon: path is bad"},
	} {
		_, _, err := ask(t, c.said)
		var said *daemon.Error
		if c.want == nil && !errors.As(err, &said) || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v; want %v, %q", name, err, c.want, c.text)
		}
	}
}

// TestSilence: a daemon that owes an answer for too long is given up.
func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() {
			_, _ = theirs.Write(greeting)
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		begun := time.Now()
		c, err := daemon.New(t.Context(), ours, daemon.Options{Patience: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.IsValid(t.Context(), "/nix/store/11111111111111111111111111111111-a")
		if !errors.Is(err, daemon.ErrSilent) || time.Since(begun) != time.Minute {
			t.Errorf("IsValid = %v after %v; want ErrSilent after a minute", err, time.Since(begun))
		}
	})
}

func FuzzDaemonSays(f *testing.F) {
	f.Add(append(greeting[:len(greeting):len(greeting)], aPath...))
	f.Add(words(hello, v34, last, last, 1, "", "sha1:00", 0, 5, 1, 0, 0, ""))
	f.Add(words(hello, v34, last, fail, "\x1b[31;1merror:\x1b[0m", 1))
	f.Add(words(hello, v34, last, told, 1, 1, 1, 7))
	f.Fuzz(func(t *testing.T, said []byte) {
		info, _, err := ask(t, said)
		if err == nil && (info.NarSize < 0 || len(info.References) > len(said)) {
			t.Fatalf("%+v", info)
		}
	})
}
