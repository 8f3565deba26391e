package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode"

	"xnodeos.org/internal/unit"
)

// maxSeen is how much of an answer is shown to people, in bytes.
const maxSeen = 200

// ask puts one question. The text is what was observed; an error makes it red.
func (p Prober) ask(ctx context.Context, e Exam, q Probe, reread func() (Answer, error)) (string, error) {
	switch q.Kind {
	case KindAgent:
		return p.askAgent(ctx, e.System)
	case KindUnits:
		return p.askUnits(ctx, e, q)
	case KindRoute:
		return p.askRoute(ctx)
	case KindDNS:
		answer, err := reread()
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d records from %s", len(answer.Texts), answer.From), nil
	case KindRecord:
		return p.askRecord(reread)
	case KindReady:
		return askReady(ctx, filepath.Join(p.Root, q.Socket), q.Path)
	case KindCommand:
		return p.askCommand(ctx, q)
	default:
		return "", fmt.Errorf("no probe of kind %q is known", q.Kind)
	}
}

// askAgent looks whether the follower that runs is the system's own program. An
// agent of the old system that goes on would hide that the new one cannot run,
// and then nobody could ever replace this release.
func (p Prober) askAgent(ctx context.Context, system string) (string, error) {
	want, err := filepath.EvalSymlinks(filepath.Join(p.root(), system, "sw/bin/xnode"))
	if err != nil {
		return "", fmt.Errorf("the system has no agent: %w", err)
	}
	pid, err := p.Units.MainPID(ctx, FollowerUnit)
	if err != nil {
		return "", err
	}
	if pid == 0 {
		return "", fmt.Errorf("%s does not run", FollowerUnit)
	}
	program, err := os.Readlink(filepath.Join(p.root(), "proc", fmt.Sprint(pid), "exe"))
	if err != nil {
		return "", fmt.Errorf("look at process %d: %w", pid, err)
	}
	if filepath.Join(p.Root, program) != want {
		return "", fmt.Errorf("process %d runs %q; want %q", pid, program, want)
	}
	if err := p.Ping(ctx); err != nil {
		return "", fmt.Errorf("process %d does not answer: %w", pid, err)
	}
	return fmt.Sprintf("process %d runs it and answers", pid), nil
}

func (p Prober) root() string {
	if p.Root == "" {
		return "/"
	}
	return p.Root
}

func (p Prober) askUnits(ctx context.Context, e Exam, q Probe) (string, error) {
	failed, err := p.Units.Failed(ctx)
	if err != nil {
		return "", err
	}
	var fresh, known []string
	for _, f := range failed {
		switch {
		case isOwn(f.Name) || slices.Contains(q.Ignore, f.Name):
		case slices.Contains(e.Before.FailedUnits, f.Name):
			known = append(known, f.Name)
		default:
			fresh = append(fresh, fmt.Sprintf("%s (%s)", f.Name, f.How))
		}
	}
	observed := ""
	if len(known) > 0 {
		observed = "failed before and still: " + strings.Join(known, ", ")
	}
	switch {
	case len(fresh) > 0 && observed != "":
		return observed + ";", fmt.Errorf("newly failed: %s", strings.Join(fresh, ", "))
	case len(fresh) > 0:
		return "", fmt.Errorf("newly failed: %s", strings.Join(fresh, ", "))
	case observed == "":
		return "nothing failed", nil
	}
	return observed, nil
}

func (p Prober) askRoute(ctx context.Context) (string, error) {
	routes, err := p.Routes(ctx)
	if err != nil {
		return "", err
	}
	if len(routes) == 0 {
		return "", errors.New("there is no default route over a link that works")
	}
	return strings.Join(routes, ", "), nil
}

func (p Prober) askRecord(reread func() (Answer, error)) (string, error) {
	answer, err := reread()
	if err != nil {
		return "", err
	}
	if len(answer.Texts) == 0 {
		return "", fmt.Errorf("%s has no record", answer.From)
	}
	var wrong []error
	for _, text := range answer.Texts {
		err := p.Verify(text)
		if err == nil {
			return shorten(text), nil
		}
		wrong = append(wrong, err)
	}
	return "", errors.Join(wrong...)
}

// rereadOnce makes the two probes that look at the record share one question to
// DNS, with the longer of their deadlines.
func (p Prober) rereadOnce(ctx context.Context, set Set) func() (Answer, error) {
	return sync.OnceValues(func() (Answer, error) {
		limit := Default()[3].Deadline
		for _, q := range set {
			if q.Kind == KindDNS || q.Kind == KindRecord {
				limit = max(limit, q.Deadline)
			}
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return p.Follower.Reread(ctx)
	})
}

// askReady asks a service on its unix socket whether it is ready.
func askReady(ctx context.Context, socket, path string) (string, error) {
	client := http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		// An answer elsewhere is none.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	// What a service says is for people; how long it is, is its own affair.
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxSeen+1))
	text := shorten(string(body))
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return text, fmt.Errorf("it answers %s", response.Status)
	}
	return strings.TrimSpace(response.Status + " " + text), nil
}

// shorten makes outside text fit for a line of a log.
func shorten(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxSeen {
		text = strings.ToValidUTF8(text[:maxSeen], "") + "..."
	}
	return text
}

func (p Prober) askCommand(ctx context.Context, q Probe) (string, error) {
	r, err := p.Units.Run(ctx, unit.Service{
		Name:        "xnode-probe-" + q.Name + ".service",
		Description: "Probe " + q.Name,
		Argv:        q.Argv,
		RuntimeMax:  q.Deadline,
		MemoryMax:   q.MemoryMax,
		TasksMax:    64,
		Confinement: unit.Confined,
	})
	if err != nil {
		return "", err
	}
	if !r.Success() {
		return "", errors.New(r.String())
	}
	return r.String(), nil
}
