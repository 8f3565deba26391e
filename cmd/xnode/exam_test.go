package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/probe"
	"xnodeos.org/internal/unit"
)

// putAt writes a file below a node's root.
func putAt(t *testing.T, at layout, name, text string) {
	t.Helper()
	path := at.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const (
	oldSystem = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-one"
	newSystem = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-two"
)

// After the way back from a release that follows another name, the record must
// be judged under the old one: else a good node would end in SAFE.
func TestRecordIsJudgedUnderTheNameOfTheSystemUnderExam(t *testing.T) {
	t.Parallel()
	at := layout{t.TempDir()}
	putAt(t, at, oldSystem+"/etc/xnode/agent.toml", "name = \"old.example.org\"\n[from_a_newer_agent]\nx = 1\n")
	putAt(t, at, newSystem+"/etc/xnode/agent.toml", "name = \"new.example.org\"\n")
	putAt(t, at, "etc/xnode/agent.toml", "name = \"running.example.org\"\n")
	var asked []string
	e := &examiner{at: at, log: slog.New(slog.DiscardHandler), verify: func(owner, _ string) error {
		asked = append(asked, owner)
		return nil
	}}
	for _, tt := range []struct{ system, want string }{
		{oldSystem, "old.example.org"}, {newSystem, "new.example.org"}, {"", "running.example.org"},
	} {
		if err := e.prober(tt.system).Verify("v=xnode1"); err != nil {
			t.Fatal(err)
		}
		if got := asked[len(asked)-1]; got != tt.want {
			t.Errorf("a record read under %q is judged under %q; want %q", tt.system, got, tt.want)
		}
	}
	putAt(t, at, "run/xnode/node/agent.toml", "name = \"node.example.org\"\n")
	putAt(t, at, newSystem+"/etc/xnode/agent.toml", "name = \n")
	for _, system := range []string{oldSystem, newSystem} {
		if got := at.owner(system); got != "node.example.org" {
			t.Errorf("with a node config %s follows %q", system, got)
		}
	}
}

func TestBrokenProbes(t *testing.T) {
	t.Parallel()
	at := layout{t.TempDir()}
	e := &examiner{at: at, log: slog.New(slog.DiscardHandler)}
	putAt(t, at, oldSystem+"/etc/xnode/probes.toml", "[[ready]]\nname = \"NO\"\n")
	putAt(t, at, newSystem+"/etc/xnode/probes.toml", "[[ready]]\nname = \"shop\"\nsocket = \"/run/shop.sock\"\n")
	got, err := e.set(oldSystem, newSystem)
	if err != nil || len(got) != len(probe.Default())+1 {
		t.Errorf("behind a broken old file the candidate is asked %d questions, %v; want the built-in ones and its own", len(got), err)
	}
	_, err = e.set(newSystem, oldSystem)
	var refusal *agent.Refusal
	if !errors.As(err, &refusal) || refusal.Reason.Code != agent.CodeInvalid || refusal.Held() {
		t.Errorf("a candidate with a broken file: %v; want it refused for good", err)
	}
	// After the way back the old one is judged all the same.
	if got, err := e.questions(apply.Exam{System: oldSystem}); err != nil || len(got) != len(probe.Default()) {
		t.Errorf("after the way back to a broken file: %d questions, %v; want the built-in ones", len(got), err)
	}
	if _, err := e.questions(apply.Exam{System: oldSystem, Old: newSystem}); err == nil {
		t.Error("a candidate with a broken file is probed")
	}
}

// An applier that hangs is started again by its socket: the dead man must get
// the lock all the same, and not for ever try.
func TestDeadManInsistsOnTheLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	take := func(ctx context.Context) (*os.File, error) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		return apply.TakeLock(ctx, path)
	}
	holder, err := apply.TakeLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	stops := 0
	if _, err := insist(t.Context(), func(context.Context) error { stops++; return nil }, take); err == nil || stops != insistences-1 {
		t.Errorf("with an applier that nothing ends: %v after %d stops; want an error after %d", err, stops, insistences-1)
	}
	stops = 0
	file, err := insist(t.Context(), func(context.Context) error {
		if stops++; stops == 3 {
			return holder.Close()
		}
		return nil
	}, take)
	if err != nil || stops != 3 {
		t.Fatalf("insist = %v after %d stops; want the lock after 3", err, stops)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

// With --root somebody looks at another node's files: nothing of this machine
// may be switched or restarted for them.
func TestAnotherRootHasItsOwnSystemd(t *testing.T) {
	t.Parallel()
	at := layout{t.TempDir()}
	_, err := at.systemd(t.Context())
	if !errors.Is(err, unit.ErrUnavailable) || !strings.Contains(err.Error(), at.root) {
		t.Errorf("systemd of %s: %v", at.root, err)
	}
}

func TestIdentityIsReadAsFarAsItCan(t *testing.T) {
	t.Parallel()
	at := layout{t.TempDir()}
	putAt(t, at, "run/xnode/boot.json", `{"sequence":7}`)
	putAt(t, at, "var/lib/xnode/node-key.pub", "no key")
	who, err := at.identity()
	if err == nil || who.booted.Sequence != 7 || who.key != "" {
		t.Errorf("identity = %+v, %v; want what was booted, and an error for the key", who, err)
	}
}
