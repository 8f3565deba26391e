package statusapi

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// metricsType is Prometheus's text format, the one that every version reads.
// https://prometheus.io/docs/instrumenting/exposition_formats/
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// serveMetrics turns the newest status into Prometheus samples. Their names are
// stable: dashboards outlive releases. They are written here and not by
// Prometheus's client library, which brings the reflection of protobuf along:
// a third of what an idle agent held in memory.
func (s *Server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	status, _ := s.get()
	w.Header().Set("Content-Type", metricsType)
	_, _ = w.Write(metrics(&status, s.opt.Program)) // a reader that went away is no fault
}

// samples writes metrics one after the other.
type samples struct{ bytes.Buffer }

// family begins a metric; its samples follow.
func (m *samples) family(name, kind, help string) {
	fmt.Fprintf(m, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one value; labels are names and values in turn.
func (m *samples) sample(name string, value float64, labels ...string) {
	m.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		m.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		fmt.Fprintf(m, `%s="%s"`, labels[i], labelEscapes.Replace(strings.ToValidUTF8(labels[i+1], "?")))
	}
	if len(labels) > 1 {
		m.WriteByte('}')
	}
	m.WriteByte(' ')
	m.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	m.WriteByte('\n')
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func (m *samples) gauge(name, help string, value float64) {
	m.family(name, "gauge", help)
	m.sample(name, value)
}

func (m *samples) counter(name, help string, value uint64) {
	m.family(name, "counter", help)
	m.sample(name, float64(value))
}

// metrics are all samples of a status.
func metrics(s *Status, program string) []byte {
	var m samples
	m.family("xnode_phase", "gauge", "1 for the phase that the agent is in.")
	m.sample("xnode_phase", 1, "phase", s.Phase)
	m.family("xnode_info", "gauge", "What runs here.")
	m.sample("xnode_info", 1, "program", program, "class", s.Node.Class, "medium", s.Node.Medium, "system", s.Systems.Current)
	m.probes(s.Probes)
	m.gauge("xnode_healthy", "1 if the health is ok.", truth(s.Health == Healthy))
	m.gauge("xnode_paused", "1 if somebody paused the agent.", truth(s.Paused))
	m.gauge("xnode_quarantined_systems", "Systems that are not tried again.", float64(len(s.Quarantine)))
	m.gauge("xnode_last_poll_timestamp_seconds", "When the record was last asked for.", unixTime(s.Poll.Last))
	if r := s.Record; r != nil {
		m.gauge("xnode_release_sequence", "Sequence of the newest accepted record.", float64(r.Sequence))
		m.gauge("xnode_record_published_timestamp_seconds", "When the record was published.", unixTime(r.Published))
		m.gauge("xnode_record_expires_timestamp_seconds", "When the record expires.", unixTime(r.Expires))
		m.gauge("xnode_record_stale", "1 if the record has expired.", truth(r.Expired))
		m.gauge("xnode_record_halted", "1 if the release is halted.", truth(r.Halted))
	}
	m.counter("xnode_polls_total", "Questions for the record.", s.Counts.Polls)
	m.counter("xnode_poll_faults_total", "Questions that brought no news because something failed.", s.Counts.PollFaults)
	m.counter("xnode_fetches_total", "Releases fetched.", s.Counts.Fetches)
	m.counter("xnode_fetch_faults_total", "Fetches of a release that failed.", s.Counts.FetchFaults)
	m.counter("xnode_tries_total", "Systems tried.", s.Counts.Tries)
	m.counter("xnode_rollbacks_total", "Tries that went back.", s.Counts.Rollbacks)
	m.counter("xnode_fetched_bytes_total", "Bytes of store paths fetched, as they came.", s.Counts.BytesFetched)
	m.process()
	return m.Bytes()
}

func (m *samples) probes(probes []Probe) {
	if len(probes) == 0 {
		return
	}
	m.family("xnode_probe_green", "gauge", "Last result of each probe: 1 green, 0 red.")
	seen := map[string]bool{}
	for _, p := range probes {
		if !seen[p.Name] { // a second one of the name would make the whole scrape fail
			seen[p.Name] = true
			m.sample("xnode_probe_green", truth(p.Green), "probe", p.Name)
		}
	}
}

// process tells of this process what dashboards expect of any.
func (m *samples) process() {
	m.gauge("go_goroutines", "Number of goroutines that currently exist.", float64(runtime.NumGoroutine()))
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) == nil {
		cpu := time.Duration(used.Utime.Nano() + used.Stime.Nano())
		m.family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.")
		m.sample("process_cpu_seconds_total", cpu.Seconds())
	}
	if data, err := os.ReadFile("/proc/self/statm"); err == nil { // proc_pid_statm(5): the second word, in pages
		if words := strings.Fields(string(data)); len(words) > 1 {
			if pages, err := strconv.ParseFloat(words[1], 64); err == nil {
				m.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", pages*float64(os.Getpagesize()))
			}
		}
	}
}

func unixTime(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
