package statusapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const pocket2 = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-xnodeos-pocket-2"

// example is a status with everything in it.
func example() Status {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	return Status{
		V: Version, Time: at, Health: Degraded, Problems: []string{"release 7 was tried and went back"},
		Node:   Node{Hostname: "node1", Key: "SHA256:abc", Class: "edge", Medium: "live", Storage: "disk", Label: "pocket-1"},
		Phase:  "IDLE",
		Reason: "release 7 is in quarantine",
		Record: &Record{
			Name: "stable._xnode.example.org", Sequence: 7, Commit: strings.Repeat("ab", 20),
			Published: at.Add(-time.Hour), Expires: at.Add(24 * time.Hour), Signer: "SHA256:def", Source: "192.0.2.1:53",
		},
		Systems:    Systems{Booted: pocket2, Current: pocket2, LastGoodLive: pocket2, LastGoodBoot: pocket2},
		Probes:     []Probe{{"units", true, "no newly failed unit"}, {"route", false, "no default route <b>"}},
		Quarantine: []Quarantined{{7, "/nix/store/cccccccccccccccccccccccccccccccc-xnodeos-pocket-3", "unit pocket-broken.service failed", at}},
		Poll:       Poll{Last: at.Add(-10 * time.Second), Next: at.Add(35 * time.Second)},
		History:    []Event{{at, 7, pocket2, "went back", "unit failed"}, {at.Add(-time.Minute), 6, pocket2, "committed", ""}},
		Counts:     Counts{Polls: 12, PollFaults: 1},
	}
}

// asked counts what the socket was asked for.
type asked struct{ polls atomic.Int32 }

func (a *asked) Poll(context.Context) error {
	if a.polls.Add(1) > 1 {
		return errors.New("already asking")
	}
	return nil
}
func (a *asked) Reread(context.Context) (Reread, error) {
	return Reread{Texts: []string{"v=xnode1; s=1"}, Source: "192.0.2.1:53"}, nil
}

// start serves both listeners and returns the socket and the page's address.
func start(t *testing.T) (s *Server, a *asked, socket, page string) {
	t.Helper()
	a = &asked{}
	s = New(Options{Commands: a, Log: slog.New(slog.DiscardHandler), Program: "test"})
	socket = filepath.Join(t.TempDir(), "status.sock")
	unix, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.ServeSocket(ctx, unix) }()
	go func() { done <- s.ServePage(ctx, tcp) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
	return s, a, socket, "http://" + tcp.Addr().String()
}

func TestClient(t *testing.T) {
	t.Parallel()
	s, a, socket, _ := start(t)
	c := NewClient(socket)
	want := example()
	s.Set(want)
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("Status (-want +got):\n%s", diff)
	}
	if err := c.Poll(t.Context()); err != nil || a.polls.Load() != 1 {
		t.Errorf("Poll: %v, %d polls", err, a.polls.Load())
	}
	if err := c.Poll(t.Context()); err == nil || !strings.Contains(err.Error(), "the agent refuses: already asking") {
		t.Errorf("Poll: %v; want the agent's refusal", err)
	}
	if got, err := c.Reread(t.Context()); err != nil || got.Source != "192.0.2.1:53" {
		t.Errorf("Reread = %v, %v", got, err)
	}
}

func TestWatchSeesEveryLastState(t *testing.T) {
	t.Parallel()
	s, _, socket, _ := start(t)
	var phases []string
	stop := errors.New("enough")
	err := NewClient(socket).Watch(t.Context(), func(st *Status) error {
		phases = append(phases, st.Phase)
		switch st.Phase {
		case "STARTING":
			s.Set(Status{Phase: "PROBING"})
		case "PROBING":
			s.Set(Status{Phase: "SETTLED"})
		default:
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"STARTING", "PROBING", "SETTLED"}, phases); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
}

func TestClientSaysThatNothingListens(t *testing.T) {
	t.Parallel()
	_, err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the agent does not run") {
		t.Errorf("error is %v", err)
	}
}

// get asks the page under a name.
func get(t *testing.T, method, url, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// The port must not be reachable under a name that a web page chose, and must
// not change anything.
func TestPageIsForLoopbackAndReading(t *testing.T) {
	t.Parallel()
	s, a, _, page := start(t)
	s.Set(example())
	tests := []struct {
		method, path, host string
		want               int
	}{
		{"GET", "/", "127.0.0.1", 200}, {"GET", "/", "localhost:9780", 200}, {"GET", "/status", "[::1]:9780", 200},
		{"GET", "/", "evil.example.org", 403}, {"GET", "/status", "127.0.0.1.example.org:80", 403}, {"GET", "/metrics", "10.0.0.1", 403},
		{"POST", "/poll", "localhost", 405}, {"POST", "/reread", "localhost", 405}, {"GET", "/nothing", "localhost", 404},
	}
	for _, tt := range tests {
		code, _ := get(t, tt.method, page+tt.path, tt.host)
		if tt.want == 405 && code == 404 {
			code = 405 // there is no such thing at all on this listener
		}
		if code != tt.want {
			t.Errorf("%s %s as %s = %d; want %d", tt.method, tt.path, tt.host, code, tt.want)
		}
	}
	if a.polls.Load() != 0 {
		t.Error("the page's port took a command")
	}
}

func TestPageShowsTheStatusEscaped(t *testing.T) {
	t.Parallel()
	s, _, _, page := start(t)
	s.Set(example())
	_, body := get(t, "GET", page+"/", "localhost")
	for _, want := range []string{"node1", "degraded", "release 7 is in quarantine", "xnodeos-pocket-2", "no default route &lt;b&gt;", "went back"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	s, _, _, page := start(t)
	s.Set(example())
	_, body := get(t, "GET", page+"/metrics", "localhost")
	for _, want := range []string{
		"xnode_healthy 0\n", "xnode_release_sequence 7\n", "xnode_polls_total 12\n", "xnode_quarantined_systems 1\n",
		`xnode_phase{phase="IDLE"} 1`, `xnode_probe_green{probe="route"} 0`, "process_resident_memory_bytes", "xnode_record_stale 0\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	// Prometheus's own parser and linter read it.
	if problems, err := promlint.New(strings.NewReader(body)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// What a probe or a unit is called may hold anything.
func TestMetricsEscape(t *testing.T) {
	t.Parallel()
	st := Status{Phase: "IDLE", Probes: []Probe{{Name: "a \"b\"\\\n\xff", Green: true}, {Name: "twice"}, {Name: "twice"}}}
	text := string(metrics(&st, "test"))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("Prometheus cannot read it: %v\n%s", err, text)
	}
	probes := parsed["xnode_probe_green"].GetMetric()
	if len(probes) != 2 || probes[0].GetLabel()[0].GetValue() != "a \"b\"\\\n?" {
		t.Errorf("probes came as %v", probes)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	st := example()
	var out bytes.Buffer
	if err := st.WriteText(&out, 0); err != nil {
		t.Fatal(err)
	}
	want := `node            node1, SHA256:abc
class           edge, live, state on disk
health          degraded
                ! release 7 was tried and went back
phase           IDLE: release 7 is in quarantine
release         7 (commit abababababab) from 192.0.2.1:53
record          stable._xnode.example.org, published 1 h ago, expires in 24 h
running         xnodeos-pocket-2
booted          xnodeos-pocket-2
last good       xnodeos-pocket-2
probes          ok units: no newly failed unit
                RED route: no default route <b>
quarantine      release 7, xnodeos-pocket-3: unit pocket-broken.service failed
asked           10 s ago
asks again      in 35 s
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("WriteText (-want +got):\n%s", diff)
	}
	if got, want := st.Oneline(), `degraded idle release=7 system=xnodeos-pocket-2 reason="release 7 is in quarantine"`; got != want {
		t.Errorf("Oneline = %s; want %s", got, want)
	}
	out.Reset()
	if err := WriteHistory(&out, st.History); err != nil {
		t.Fatal(err)
	}
	wantHistory := "2026-11-20 11:59:00  6  committed  xnodeos-pocket-2  \n2026-11-20 12:00:00  7  went back  xnodeos-pocket-2  unit failed\n"
	if diff := cmp.Diff(wantHistory, out.String()); diff != "" {
		t.Errorf("WriteHistory (-want +got):\n%s", diff)
	}
}

// On a terminal nothing is cut off and nothing leaves its column; what the
// problems say already is not said twice.
func TestTextFitsTheTerminal(t *testing.T) {
	t.Parallel()
	st := example()
	st.Poll.Error = "no resolver answered: 192.0.2.1:53: timeout, 192.0.2.2:53: timeout"
	st.Problems = []string{"no record yet: " + st.Poll.Error}
	st.History = nil
	var out bytes.Buffer
	if err := st.WriteText(&out, 60); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 61 {
			t.Errorf("%q is wider than 60", line)
		}
	}
	for _, want := range []string{
		"                ! no record yet: no resolver answered:\n                192.0.2.1:53: timeout, 192.0.2.2:53: timeout\n",
		"asked           10 s ago: no news, see above\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the status lacks %q:\n%s", want, out.String())
		}
	}
}

// Scripts read the JSON: its keys are a contract.
func TestJSONKeys(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"v":1`, `"health":"degraded"`, `"phase":"IDLE"`, `"sequence":7`, `"last_good_live"`, `"green":false`} {
		if !bytes.Contains(data, []byte(key)) {
			t.Errorf("the JSON lacks %s", key)
		}
	}
}
