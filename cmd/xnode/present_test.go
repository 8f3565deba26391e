package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/agent/units"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

// systemd that executes itself anew in a switch must not cost the follower.
func TestWatchdogIsFedAgainAfterAPause(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	ctx, cancel := context.WithCancel(t.Context())
	done, beats := make(chan struct{}), make(chan struct{}, 1000)
	go func() {
		defer close(done)
		alive := func() {
			select {
			case beats <- struct{}{}:
			default:
			}
		}
		beat(ctx, time.Millisecond, units.Notifier{Socket: path}, alive, slog.New(slog.DiscardHandler))
	}()
	for range 5 { // nobody listens yet
		<-beats
	}
	l, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	word := make([]byte, 100)
	if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := l.ReadFrom(word); err != nil || string(word[:n]) != "WATCHDOG=1" {
		t.Errorf("systemd hears %q, %v", word[:n], err)
	}
	cancel()
	<-done
}

// A follower that hangs is not kept alive by a goroutine that does not.
func TestWatchdogOfAFollowerThatHangs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	hangs, hung, done := make(chan struct{}), make(chan struct{}, 1000), make(chan struct{})
	go func() {
		defer close(done)
		alive := func() { hung <- struct{}{}; <-hangs }
		beat(ctx, time.Millisecond, units.Notifier{Socket: path}, alive, slog.New(slog.DiscardHandler))
	}()
	<-hung
	if err := l.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := l.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("systemd hears %d bytes of a follower that hangs", n)
	}
	cancel()
	close(hangs)
	<-done
}

func TestChronicle(t *testing.T) {
	t.Parallel()
	at := layout{t.TempDir()}
	c := chronicle{at: at}
	if got := c.newest(); len(got) != 0 {
		t.Errorf("without a file: %v", got)
	}
	line := "{\"time\":1795180800,\"event\":\"paused\"}\n"
	putAt(t, at, "var/lib/xnode/applier/history.jsonl", strings.Repeat(line, 50))
	if got := c.newest(); len(got) != statusapi.HistoryShown || got[0].Event != "paused" {
		t.Errorf("of 50 events it shows %d", len(got))
	}
	putAt(t, at, "var/lib/xnode/applier/history.jsonl", line+"{\"time\":1795180801,\"event\":\"resumed\"}\n")
	if got := c.newest(); len(got) != 2 || got[0].Event != "resumed" {
		t.Errorf("after a change it shows %v", got)
	}
}

// A trust.json that a bad disk changed must not keep the node from asking for a
// newer one.
func TestDamagedTrustLeavesTheEmbeddedOne(t *testing.T) {
	t.Parallel()
	at := layout{t.TempDir()}
	signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	putAt(t, at, "run/xnode/node/trust/allowed_signers", trust.Line(signer.PublicKey(), "release", trust.NamespaceAnnounce)+"\n")
	putAt(t, at, "var/lib/xnode/applier/trust.json", "[{")
	if keys, err := at.trust(); err != nil || keys == nil || keys.Signers == nil {
		t.Errorf("trust = %v, %v; want the embedded one", keys, err)
	}
	if err := os.Remove(at.path("run/xnode/node/trust/allowed_signers")); err != nil {
		t.Fatal(err)
	}
	if _, err := at.trust(); err == nil {
		t.Error("without anything to trust there is no error")
	}
}

// Two writes in one tick of the file system's clock are two changes.
func TestApplierChanged(t *testing.T) {
	t.Parallel()
	at := layout{t.TempDir()}
	putAt(t, at, "var/lib/xnode/applier/journal.a", "one")
	before := at.applierChanged()
	stamp := time.Unix(1795180800, 0)
	if err := os.Chtimes(at.state("applier/journal.a"), stamp, stamp); err != nil {
		t.Fatal(err)
	}
	first := at.applierChanged()
	putAt(t, at, "var/lib/xnode/applier/new", "two")
	if err := os.Chtimes(at.state("applier/new"), stamp, stamp); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at.state("applier/new"), at.state("applier/journal.a")); err != nil {
		t.Fatal(err)
	}
	if second := at.applierChanged(); before == first || first == second {
		t.Errorf("%q, %q, %q: want three different words", before, first, second)
	}
}
