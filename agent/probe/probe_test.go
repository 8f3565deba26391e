package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/agent"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/unit"
)

func TestFormats(t *testing.T) {
	t.Parallel()
	set, err := ParseStrict("probes.toml", []byte(testkit.FormatsExample(t, "probes.toml")))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want[1].Ignore = []string{"backup.service"}
	want[3].Deadline = 45 * time.Second
	want = append(want,
		Probe{Kind: KindReady, Name: "shop", Socket: "/run/shop/admin.sock", Path: "/readyz", Deadline: 10 * time.Second},
		Probe{
			Kind: KindCommand, Name: "disk", Argv: []string{"/run/current-system/sw/bin/test", "-w", "/srv"},
			Deadline: 20 * time.Second, MemoryMax: 64 << 20,
		})
	if diff := cmp.Diff(want, set); diff != "" {
		t.Errorf("docs/formats.md, probes.toml (-want +got):\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text    string
		strict  string // part of the error, "" for none
		lenient string
	}{
		"empty":          {"", "", ""},
		"unknown table":  {"[heart]\nbeat = 1\n", `no key "heart`, ""},
		"unknown key":    {"[[ready]]\nname=\"a\"\nsocket=\"/a\"\ncolour=1\n", `no key "ready.colour"`, ""},
		"ignore":         {"[route]\nignore=[\"a\"]\n", `no key "route.ignore"`, ""},
		"no TOML":        {"a = \n", "probes.toml:1", "probes.toml:1"},
		"wrong type":     {"[dns]\ndeadline = 3\n", "deadline", "deadline"},
		"deadline":       {"[dns]\ndeadline = \"1h\"\n", `[dns] deadline = "1h"`, `"10m"`},
		"name":           {"[[ready]]\nname=\"A b\"\nsocket=\"/a\"\n", `name = "A b"`, `name = "A b"`},
		"reserved name":  {"[[ready]]\nname=\"a-new\"\nsocket=\"/a\"\n", `"-new"`, `"-new"`},
		"socket":         {"[[ready]]\nname=\"a\"\nsocket=\"a\"\n", "absolute path", "absolute path"},
		"path":           {"[[ready]]\nname=\"a\"\nsocket=\"/a\"\npath=\"x y\"\n", "path =", "path ="},
		"argv":           {"[[command]]\nname=\"a\"\nargv=[\"true\"]\n", "absolute path", "absolute path"},
		"memory":         {"[[command]]\nname=\"a\"\nargv=[\"/a\"]\nmemory=\"1\"\n", "memory =", "memory ="},
		"memory unit":    {"[[command]]\nname=\"a\"\nargv=[\"/a\"]\nmemory=\"9T\"\n", "memory =", "memory ="},
		"twice":          {"[[ready]]\nname=\"a\"\nsocket=\"/a\"\n[[ready]]\nname=\"a\"\nsocket=\"/b\"\n", "twice", "twice"},
		"zero in a word": {"[[command]]\nname=\"a\"\nargv=[\"/a\", \"\\u0000\"]\n", "zero byte", "zero byte"},
		"too many":       {strings.Repeat("[[x]]\n", 90000), "longer", "longer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind, c := range map[string]struct {
				parse func(string, []byte) (Set, error)
				want  string
			}{"strict": {ParseStrict, test.strict}, "lenient": {ParseLenient, test.lenient}} {
				set, err := c.parse("probes.toml", []byte(test.text))
				if c.want == "" && (err != nil || len(set) < len(Default())) {
					t.Errorf("%s: %v, %v; want a set", kind, set, err)
				}
				if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%s: %v; want %q in it", kind, err, c.want)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[dns]\ndeadline = \"3s\"\n[[ready]]\nname=\"a\"\nsocket=\"/a\"\n"))
	f.Add([]byte("[[command]]\nname=\"a\"\nargv=[\"/a\"]\nmemory=\"64M\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		strict, strictErr := ParseStrict("f", data)
		lenient, lenientErr := ParseLenient("f", data)
		if strictErr == nil && (lenientErr != nil || !cmp.Equal(strict, lenient)) {
			t.Errorf("strict gives %v, lenient %v, %v", strict, lenient, lenientErr)
		}
		for _, p := range lenient {
			if p.Deadline <= 0 || p.Deadline > maxDeadline || p.ID() == "" {
				t.Errorf("probe %+v", p)
			}
		}
		if len(Union(lenient, lenient)) != len(lenient) {
			t.Error("a set joined with itself is another")
		}
	})
}

func TestUnion(t *testing.T) {
	t.Parallel()
	ready := func(name, socket string, d time.Duration) Probe {
		return Probe{Kind: KindReady, Name: name, Socket: socket, Path: "/readyz", Deadline: d}
	}
	old := append(Default(), ready("kept", "/kept", time.Second), ready("moved", "/old", time.Second), ready("dropped", "/d", time.Second))
	old[1].Ignore = []string{"a.service", "b.service"}
	candidate := append(Default(), ready("kept", "/kept", 9*time.Second), ready("moved", "/new", time.Second), ready("added", "/a", time.Second))
	candidate[1].Ignore = []string{"b.service", "c.service"}
	candidate[3].Deadline = time.Second
	var got []string
	for _, p := range Union(old, candidate) {
		text := p.ID() + " " + p.Socket + " " + p.Deadline.String() + strings.Join(p.Ignore, ",")
		if p.New {
			text += " new"
		}
		got = append(got, text)
	}
	want := []string{
		"agent  30s", "units  30sb.service", "route  10s", "dns  30s", "record  30s",
		"ready:kept /kept 9s", "ready:moved /old 1s", "ready:dropped /d 1s", "ready:moved-new /new 1s new", "ready:added /a 1s new",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Union (-want +got):\n%s", diff)
	}
}

// machine plays everything around the prober.
type machine struct {
	lock      sync.Mutex // of failed, which scripts change
	failed    []unit.Failed
	failedErr error
	pid       int
	run       unit.Result
	ran       *unit.Service
	answer    Answer
	rereadErr error
	pingErr   error
	routes    []string
	wait      time.Duration // before the follower answers
}

func (m *machine) fail(units []unit.Failed) {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.failed = units
}

func (m *machine) Failed(context.Context) ([]unit.Failed, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.failed, m.failedErr
}

func (m *machine) MainPID(_ context.Context, _ string) (int, error) { return m.pid, nil }
func (m *machine) Run(_ context.Context, s unit.Service) (unit.Result, error) {
	m.ran = &s
	return m.run, nil
}

func (m *machine) Reread(ctx context.Context) (Answer, error) {
	select {
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	case <-time.After(m.wait):
		return m.answer, m.rereadErr
	}
}

// healthy is a machine with nothing wrong, and the prober and system on it.
func healthy(t *testing.T) (*machine, Prober, string) {
	t.Helper()
	root := t.TempDir()
	const system, program = "/nix/store/s", "/nix/store/x-xnode"
	for _, dir := range []string{system + "/sw/bin", "/proc/7", "/run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, program), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{system + "/sw/bin/xnode": "../../../x-xnode", "/proc/7/exe": program} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	m := &machine{
		pid: 7, answer: Answer{Texts: []string{"forged", "good"}, From: "192.0.2.1:53"}, routes: []string{"192.0.2.1 via eth0"},
		run: unit.Result{State: unit.Ended, Reason: "success"},
	}
	p := Prober{
		Units: m, Follower: m, Root: root,
		Ping:   func(context.Context) error { return m.pingErr },
		Routes: func(context.Context) ([]string, error) { return m.routes, nil },
		Verify: func(text string) error {
			if text != "good" {
				return errors.New("bad signature")
			}
			return nil
		},
	}
	return m, p, system
}

func TestAsk(t *testing.T) {
	t.Parallel()
	command := Probe{Kind: KindCommand, Name: "c", Argv: []string{"/c"}, Deadline: time.Second, MemoryMax: 1 << 20}
	for name, test := range map[string]struct {
		break_ func(*machine)
		probe  Probe
		before agent.Baseline
		want   agent.Probe
	}{
		"agent":         {nil, Default()[0], agent.Baseline{}, agent.Probe{Green: true, Observed: "process 7 runs it and answers"}},
		"no follower":   {func(m *machine) { m.pid = 0 }, Default()[0], agent.Baseline{RedProbes: []string{"agent"}}, agent.Probe{Observed: "does not run"}},
		"other process": {func(m *machine) { m.pid = 8 }, Default()[0], agent.Baseline{}, agent.Probe{Observed: "process 8"}},
		"mute":          {func(m *machine) { m.pingErr = errors.New("refused") }, Default()[0], agent.Baseline{}, agent.Probe{Observed: "does not answer: refused"}},
		"units":         {nil, Default()[1], agent.Baseline{}, agent.Probe{Green: true, Observed: "nothing failed"}},
		"new failure": {
			func(m *machine) {
				m.failed = []unit.Failed{{Name: "a.service", How: "failed"}, {Name: "b.service", How: "failed"}}
			},
			Default()[1], agent.Baseline{FailedUnits: []string{"b.service"}}, agent.Probe{Observed: "still: b.service; newly failed: a.service"},
		},
		"old failure": {
			func(m *machine) { m.failed = []unit.Failed{{Name: "b.service", How: "failed"}} },
			Default()[1], agent.Baseline{FailedUnits: []string{"b.service"}}, agent.Probe{Green: true, Observed: "still: b.service"},
		},
		"own failure": {
			func(m *machine) { m.failed = []unit.Failed{{Name: "xnode-switch.service", How: "failed"}} },
			Default()[1], agent.Baseline{}, agent.Probe{Green: true, Observed: "nothing"},
		},
		"ignored": {
			func(m *machine) { m.failed = []unit.Failed{{Name: "i.service", How: "failed"}} },
			Probe{Kind: KindUnits, Deadline: time.Second, Ignore: []string{"i.service"}}, agent.Baseline{}, agent.Probe{Green: true, Observed: "nothing"},
		},
		"no systemd": {func(m *machine) { m.failedErr = unit.ErrUnavailable }, Default()[1], agent.Baseline{}, agent.Probe{Observed: "cannot be reached"}},
		"route":      {nil, Default()[2], agent.Baseline{}, agent.Probe{Green: true, Observed: "192.0.2.1 via eth0"}},
		"no route":   {func(m *machine) { m.routes = nil }, Default()[2], agent.Baseline{}, agent.Probe{Observed: "no default route"}},
		"still none": {func(m *machine) { m.routes = nil }, Default()[2], agent.Baseline{RedProbes: []string{"route"}}, agent.Probe{Excused: true, Observed: "no default route"}},
		"dns":        {nil, Default()[3], agent.Baseline{}, agent.Probe{Green: true, Observed: "2 records from 192.0.2.1:53"}},
		"no dns":     {func(m *machine) { m.rereadErr = errors.New("SERVFAIL") }, Default()[3], agent.Baseline{}, agent.Probe{Observed: "SERVFAIL"}},
		"slow dns":   {func(m *machine) { m.wait = time.Hour }, Default()[3], agent.Baseline{}, agent.Probe{Observed: "deadline"}},
		"record":     {nil, Default()[4], agent.Baseline{}, agent.Probe{Green: true, Observed: "good"}},
		"forged":     {func(m *machine) { m.answer.Texts = []string{"x"} }, Default()[4], agent.Baseline{}, agent.Probe{Observed: "bad signature"}},
		"no record":  {func(m *machine) { m.answer.Texts = nil }, Default()[4], agent.Baseline{}, agent.Probe{Observed: "192.0.2.1:53 has no record"}},
		"command":    {nil, command, agent.Baseline{}, agent.Probe{Green: true, Observed: "exit code 0"}},
		"failing":    {func(m *machine) { m.run = unit.Result{State: unit.Ended, Reason: "exit-code", ExitCode: 3} }, command, agent.Baseline{}, agent.Probe{Observed: "exit code 3"}},
		"hanging":    {func(m *machine) { m.run = unit.Result{State: unit.Ended, Reason: "timeout"} }, command, agent.Baseline{}, agent.Probe{Observed: "timeout"}},
		"no socket":  {nil, Probe{Kind: KindReady, Name: "s", Socket: "/run/none", Path: "/", Deadline: time.Second}, agent.Baseline{}, agent.Probe{Observed: "no such file"}},
		"new is not excused": {
			nil, Probe{Kind: KindReady, Name: "s", Socket: "/run/none", Path: "/", Deadline: time.Second, New: true},
			agent.Baseline{RedProbes: []string{"ready:s"}}, agent.Probe{Observed: "no such file"},
		},
		"unknown kind": {nil, Probe{Kind: "heart", Deadline: time.Second}, agent.Baseline{}, agent.Probe{Observed: "heart"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p, system := healthy(t)
			if test.break_ != nil {
				test.break_(m)
			}
			synctest.Test(t, func(t *testing.T) {
				got := p.round(t.Context(), Exam{System: system, Set: Set{test.probe}, Before: test.before}).Probes[0]
				if got.Green != test.want.Green || got.Excused != test.want.Excused || !strings.Contains(got.Observed, test.want.Observed) || got.Name != test.probe.ID() {
					t.Errorf("%+v; want %+v", got, test.want)
				}
			})
			if test.probe.Kind == KindCommand && (m.ran == nil || m.ran.Confinement != unit.Confined || m.ran.MemoryMax != 1<<20 || m.ran.RuntimeMax != time.Second) {
				t.Errorf("the command ran as %+v", m.ran)
			}
		})
	}
}

func TestExamine(t *testing.T) {
	t.Parallel()
	fail := []unit.Failed{{Name: "late.service", How: "failed"}}
	for name, test := range map[string]struct {
		script func(*machine) // runs beside the exam
		green  bool
		took   time.Duration
	}{
		"green":         {func(*machine) {}, true, 40 * time.Second},
		"fails late":    {func(m *machine) { time.Sleep(30*time.Second + time.Millisecond); m.fail(fail) }, false, 3 * time.Minute},
		"red at first":  {func(m *machine) { m.fail(fail); time.Sleep(31 * time.Second); m.fail(nil) }, true, 72 * time.Second},
		"never settles": {func(m *machine) { flicker(m, fail) }, false, 3 * time.Minute},
		"too late":      {func(m *machine) { m.fail(fail); time.Sleep(150 * time.Second); m.fail(nil) }, false, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p, system := healthy(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				go test.script(m)
				synctest.Wait()
				begin, rounds := time.Now(), 0
				report, err := p.Examine(ctx, Exam{
					System: system, Set: Default(), Settle: 40 * time.Second, Timeout: 3 * time.Minute,
					Seen: func(agent.Report) { rounds++ },
				})
				if err != nil || report.Green() != test.green || rounds < 2 {
					t.Errorf("Examine: %+v, %v after %d rounds; want green %t", report, err, rounds, test.green)
				}
				if took := time.Since(begin); took < test.took || took > test.took+3*time.Second {
					t.Errorf("it took %s; want %s", took, test.took)
				}
				time.Sleep(time.Hour) // let the script end
			})
		})
	}
}

// flicker is red for a moment every half minute.
func flicker(m *machine, fail []unit.Failed) {
	for range 12 {
		m.fail(fail)
		time.Sleep(3 * time.Second)
		m.fail(nil)
		time.Sleep(27 * time.Second)
	}
}

func TestExamineCancelled(t *testing.T) {
	t.Parallel()
	_, p, system := healthy(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Examine(ctx, Exam{System: system, Set: Default(), Timeout: time.Second}); !errors.Is(err, context.Canceled) {
		t.Errorf("Examine: %v; want context.Canceled", err)
	}
	if _, err := p.Baseline(ctx, system, Default()); !errors.Is(err, context.Canceled) {
		t.Errorf("Baseline: %v; want context.Canceled", err)
	}
}

func TestBaseline(t *testing.T) {
	t.Parallel()
	m, p, system := healthy(t)
	m.routes = nil
	m.failed = []unit.Failed{{Name: "z.service"}, {Name: "a.service"}, {Name: "xnode-switch.service"}}
	set := append(Default(), Probe{Kind: KindReady, Name: "new", Socket: "/none", Path: "/", Deadline: time.Second, New: true})
	got, err := p.Baseline(t.Context(), system, set)
	want := agent.Baseline{FailedUnits: []string{"a.service", "z.service"}, RedProbes: []string{"route"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Baseline: %v (-want +got):\n%s", err, diff)
	}
}

// TestReady talks to servers that answer in every way.
func TestReady(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handler  http.HandlerFunc
		green    bool
		observed string
	}{
		"ready":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("all\nwell\x00")) }, true, "200 OK all well"},
		"not ready": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no peers", http.StatusServiceUnavailable) }, false, "no peers it answers 503"},
		"redirect":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) }, false, "302"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, true, "200 OK"},
		"silent": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, p, system := healthy(t)
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(p.Root, "run/s"))
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: test.handler, ReadHeaderTimeout: time.Minute}
			go func() { _ = server.Serve(l) }()
			t.Cleanup(func() { server.Close() })
			deadline := 30 * time.Second
			if name == "silent" {
				deadline = 200 * time.Millisecond
			}
			got := p.round(t.Context(), Exam{System: system, Set: Set{{Kind: KindReady, Name: "s", Socket: "/run/s", Path: "/readyz", Deadline: deadline}}}).Probes[0]
			if got.Green != test.green || !strings.Contains(got.Observed, test.observed) || len(got.Observed) > 400 {
				t.Errorf("%+v; want green %t, %q", got, test.green, test.observed)
			}
		})
	}
}
