package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/test/node"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"xnode": main})
}

// TestScripts runs the program as a user does, every command with the root in
// $XNODE_ROOT. Commands of the scripts:
//
//	node             starts a node's applier below the root, with the node config
//	                 that lies in config/; no follower
//	code N CMD...    runs xnode with --root; wants exit code N
//	await WORDS      waits for a follower whose one-line status or problems have them
//	listen           takes a port of the loopback and sets $PORT
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XNODE_ROOT", filepath.Join(env.WorkDir, "n"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node": startNode, "code": wantCode, "await": await, "listen": listen,
		},
	})
}

func startNode(ts *testscript.TestScript, _ bool, _ []string) {
	config := ts.MkAbs("config")
	if _, err := os.Stat(config); err != nil {
		config = ""
	}
	n, err := node.Start(context.Background(), node.Options{Config: config, Root: ts.Getenv("XNODE_ROOT"), Owner: "stable._xnode.example.org", Class: "edge"})
	ts.Check(err)
	ts.Defer(func() { ts.Check(n.Close()) })
}

func listen(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ts.Check(l.Close()) })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv("PORT", port)
}

func wantCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("xnode", append([]string{"--root", ts.Getenv("XNODE_ROOT")}, args[1:]...)...)
	code := 0
	var ended interface{ ExitCode() int }
	switch {
	case errors.As(err, &ended):
		code = ended.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("xnode %s ended with code %d; want %d", strings.Join(args[1:], " "), code, want)
	}
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	client := statusapi.NewClient(filepath.Join(ts.Getenv("XNODE_ROOT"), "run/xnode/agent/status.sock"))
	last := "nothing"
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		status, err := client.Status(context.Background())
		if err != nil {
			last = err.Error()
			continue
		}
		if last = status.Oneline() + " " + strings.Join(status.Problems, " "); strings.Contains(last, args[0]) {
			return
		}
	}
	ts.Fatalf("the follower does not come to %q; last it said %s", args[0], last)
}

// A cancelled command says so by its code, and so does a health that is not ok.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		err  error
		code int
	}{
		{"done", t.Context(), nil, 0},
		{"failure", t.Context(), errors.New("x"), 1},
		{"usage", t.Context(), fmt.Errorf("wrapped: %w", usagef("x")), 2},
		{"degraded", t.Context(), &reportedError{exitDegraded}, 3},
		{"cancelled", cancelled, fmt.Errorf("watch: %w", context.Canceled), 130},
		{"failed while being cancelled", cancelled, os.ErrPermission, 1},
	} {
		if code := exitCode(tt.ctx, tt.err); code != tt.code {
			t.Errorf("exitCode(%s) = %d; want %d", tt.name, code, tt.code)
		}
	}
}
