package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/vm"
	"xnodeos.org/test/site"
)

// trialLimit is for one release: switch, probes and the way back under TCG.
const trialLimit = 5 * time.Minute

// silence is after how long without a change the node is asked anew.
const silence = 20 * time.Second

// stateSize is that of the disk for XNODE-STATE, in bytes.
const stateSize = 512 << 20

// fleet is a site with an image whose nodes follow it.
type fleet struct {
	*site.Site
	img  *image
	disk string // of XNODE-STATE; empty for none
	// record is where the disk's writes are recorded; empty for nowhere.
	record string
}

// withAgent is the operator's program with the agent beside it, built once.
var withAgent struct {
	once    sync.Once
	program string
	err     error
}

// xnodeosWithAgent builds the programs so that pocket systems have the agent.
func xnodeosWithAgent(t *testing.T) string {
	t.Helper()
	withAgent.once.Do(func() {
		var root string
		if root, withAgent.err = testkit.Root("."); withAgent.err != nil {
			return
		}
		if withAgent.program, withAgent.err = testkit.BuildPrograms(t.Context(), root, filepath.Join(built.dir, "fleet")); withAgent.err != nil {
			return
		}
		_, withAgent.err = testkit.BuildAgent(t.Context(), root, filepath.Dir(withAgent.program))
	})
	if withAgent.err != nil {
		t.Fatal(withAgent.err)
	}
	return withAgent.program
}

// newFleet starts the servers, makes the fleet and builds the image of its
// nodes. more is added to what the servers are started with.
func newFleet(t *testing.T, w timings, more func(*site.Options)) *fleet {
	t.Helper()
	program := xnodeosWithAgent(t)
	dir := t.TempDir()
	options := site.Options{Dir: dir, Xnodeos: program, Agent: w.table(), Log: func(line string) { t.Log(line) }}
	if more != nil {
		more(&options)
	}
	s, err := site.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the site: %v", err)
		}
	})
	config, _ := writeNodeConfig(t, s.Node, "")
	out := filepath.Join(dir, "out")
	cmd := exec.CommandContext(t.Context(), program, "image", "build", "--system", "pocket", "--out", out,
		"--format", "netboot", "--embed-payload", "--node-config", s.Node)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	f := &fleet{Site: s, img: &image{netboot: filepath.Join(out, "netboot"), config: config}}
	data, err := os.ReadFile(filepath.Join(f.img.netboot, manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if f.img.manifest, err = manifest.Parse(data); err != nil {
		t.Fatal(err)
	}
	f.img.digest = manifest.DigestOf(data)
	return f
}

// withState gives the fleet's node an empty disk for XNODE-STATE.
func (f *fleet) withState(t *testing.T) *fleet {
	t.Helper()
	f.disk = filepath.Join(t.TempDir(), "state.img")
	if err := os.WriteFile(f.disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.disk, stateSize); err != nil {
		t.Fatal(err)
	}
	return f
}

// timings are the [activate] table of a node's agent.toml, seconds each.
type timings struct{ switching, probing, settle, stable int }

func (w timings) table() string {
	return fmt.Sprintf("\n[activate]\nswitch_timeout = \"%ds\"\nprobe_timeout = \"%ds\"\nsettle = \"%ds\"\nstable_uptime = \"%ds\"\n",
		w.switching, w.probing, w.settle, w.stable)
}

// set changes the timings of a node on which nothing is under way.
func (w timings) set(t *testing.T, n *node) {
	t.Helper()
	n.shell(t, fmt.Sprintf(`set -e
sed -i -e 's/^switch_timeout = .*/switch_timeout = "%ds"/' -e 's/^probe_timeout = .*/probe_timeout = "%ds"/' \
  -e 's/^settle = .*/settle = "%ds"/' -e 's/^stable_uptime = .*/stable_uptime = "%ds"/' /run/xnode/node/agent.toml
systemctl stop xnode-apply.service 2>/dev/null # the socket starts it again
xnode config >/dev/null`, w.switching, w.probing, w.settle, w.stable))
}

// boot starts the node and waits for READY.
func (f *fleet) boot(t *testing.T, change func(*vm.Machine)) *node {
	t.Helper()
	words := ""
	if f.disk != "" {
		words = "xnode.state=vda"
	}
	n, _ := scenario{memory: 1024, append: words, change: func(m *vm.Machine) {
		m.Nets[0].Isolated = false // the servers are on the host's loopback
		switch {
		case f.record != "":
			recorder(f.disk, f.record)(m)
		case f.disk != "":
			m.Drives = append(m.Drives, vm.Drive{File: f.disk, As: vm.Disk})
		}
		if change != nil {
			change(m)
		}
	}}.boot(t, f.img, ready, kernelPanic, stageFailed)
	return n
}

// announce releases a system; "pocket:" may be left out.
func (f *fleet) announce(t *testing.T, settings string) uint32 {
	t.Helper()
	released, err := f.Release(t.Context(), "pocket:"+settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("released %d: pocket:%s", released.Sequence, settings)
	return released.Sequence
}

// watch reads the agent's status through ssh until done says so, and returns
// it. The node may lose its network or its agent in between.
func (n *node) watch(t *testing.T, what string, done func(*statusapi.Status) bool) *statusapi.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), trialLimit)
	defer cancel()
	begun, last := time.Now(), ""
	for {
		status, err := n.watchOnce(ctx, t, func(s *statusapi.Status) bool {
			if line := s.Oneline(); line != last {
				last = line
				t.Logf("%6.1f s  %s", time.Since(begun).Seconds(), line)
			}
			return done(s)
		})
		if err == nil {
			return status
		}
		if line := err.Error(); line != last {
			last = line
			t.Logf("%6.1f s  %s", time.Since(begun).Seconds(), line)
		}
		if ctx.Err() != nil {
			t.Fatalf("the node did not come to %s within %s; last: %s (%v)\n%s", what, trialLimit, last, err, n.agentLogs(t))
		}
		select {
		case <-n.Done():
			t.Fatalf("wait for %s: QEMU has ended: %s", what, n.Wait())
		case <-time.After(2 * time.Second):
		}
	}
}

// agentLogs is what the agent wrote, if the node still lets anybody in.
func (n *node) agentLogs(t *testing.T) string {
	t.Helper()
	client, err := n.dial(t, ssh.PublicKeys(n.img.config.login))
	if err != nil {
		return fmt.Sprintf("nobody gets in: %v", err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err.Error()
	}
	out, err := session.CombinedOutput("xnode history; xnode logs; systemctl --failed --no-legend")
	return fmt.Sprintf("%s\n%v", out, err)
}

func (n *node) watchOnce(ctx context.Context, t *testing.T, done func(*statusapi.Status) bool) (*statusapi.Status, error) {
	t.Helper()
	client, err := n.dial(t, ssh.PublicKeys(n.img.config.login))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	session.Stderr = &stderr
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := session.Start("xnode poll; exec xnode watch --json"); err != nil {
		return nil, err
	}
	// A node whose network is dead says nothing and closes nothing.
	silent := time.AfterFunc(silence, func() { client.Close() })
	defer silent.Stop()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		silent.Reset(silence)
		var s statusapi.Status
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return nil, err
		}
		if done(&s) {
			return &s, nil
		}
	}
	_ = client.Close() // or Wait waits for a node that is mute
	return nil, errors.Join(errors.New("the agent has gone"), lines.Err(), session.Wait(), errors.New(strings.TrimSpace(stderr.String())))
}

// watchAccepted waits until a release that names what runs is accepted.
func (n *node) watchAccepted(t *testing.T, sequence uint32) {
	t.Helper()
	n.watch(t, fmt.Sprintf("release %d accepted", sequence), func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Sequence == sequence && (s.Phase == "IDLE" || s.Phase == "SETTLED") && s.Reason == ""
	})
}

// settlesAt waits until a release is proven and runs.
func (n *node) settlesAt(t *testing.T, sequence uint32, label string) {
	t.Helper()
	n.watch(t, fmt.Sprintf("release %d committed", sequence), func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Sequence == sequence && s.Phase == "SETTLED" && strings.HasSuffix(s.Systems.Current, "-xnodeos-"+label) &&
			strings.HasSuffix(s.Systems.LastGoodLive, "-xnodeos-"+label)
	})
}

// goesBack waits until a release is in quarantine for a reason, and what ran
// before runs again.
func (n *node) goesBack(t *testing.T, sequence uint32, label, why string) {
	t.Helper()
	s := n.watch(t, fmt.Sprintf("release %d in quarantine and %s again", sequence, label), func(s *statusapi.Status) bool {
		for _, q := range s.Quarantine {
			if q.Sequence == sequence && (s.Phase == "IDLE" || s.Phase == "SETTLED") {
				return strings.HasSuffix(s.Systems.Current, "-xnodeos-"+label)
			}
		}
		return false
	})
	for _, q := range s.Quarantine {
		if q.Sequence == sequence && !strings.Contains(q.Reason, why) {
			t.Errorf("release %d went back because of %q; want a reason with %q", sequence, q.Reason, why)
		}
	}
	if !strings.HasSuffix(s.Systems.LastGoodLive, "-xnodeos-"+label) {
		t.Errorf("last good is %s; want %s", s.Systems.LastGoodLive, label)
	}
}
