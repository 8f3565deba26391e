package statusapi

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics turns the newest status into Prometheus samples when it is asked.
// Their names are stable: dashboards outlive releases.
type metrics struct {
	registry *prometheus.Registry
	status   atomic.Pointer[Status]
	samples  []sample
	phase    *prometheus.Desc
	probe    *prometheus.Desc
	info     *prometheus.Desc
	program  string
}

// sample is one number of the status.
type sample struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Status) (float64, bool)
}

func newMetrics(program string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		phase:    prometheus.NewDesc("xnode_phase", "1 for the phase that the agent is in.", []string{"phase"}, nil),
		probe:    prometheus.NewDesc("xnode_probe_green", "Last result of each probe: 1 green, 0 red.", []string{"probe"}, nil),
		info:     prometheus.NewDesc("xnode_info", "What runs here.", []string{"program", "class", "medium", "system"}, nil),
		program:  program,
	}
	gauge := func(name, help string, value func(*Status) float64) {
		m.add(name, help, prometheus.GaugeValue, func(s *Status) (float64, bool) { return value(s), true })
	}
	counter := func(name, help string, value func(*Status) uint64) {
		m.add(name, help, prometheus.CounterValue, func(s *Status) (float64, bool) { return float64(value(s)), true })
	}
	record := func(name, help string, value func(*Record) float64) {
		m.add(name, help, prometheus.GaugeValue, func(s *Status) (float64, bool) {
			if s.Record == nil {
				return 0, false
			}
			return value(s.Record), true
		})
	}
	gauge("xnode_healthy", "1 if the health is ok.", func(s *Status) float64 { return truth(s.Health == Healthy) })
	gauge("xnode_paused", "1 if somebody paused the agent.", func(s *Status) float64 { return truth(s.Paused) })
	gauge("xnode_quarantined_systems", "Systems that are not tried again.", func(s *Status) float64 { return float64(len(s.Quarantine)) })
	gauge("xnode_last_poll_timestamp_seconds", "When the record was last asked for.", func(s *Status) float64 {
		if s.Poll.Last.IsZero() {
			return 0
		}
		return float64(s.Poll.Last.Unix())
	})
	record("xnode_release_sequence", "Sequence of the newest accepted record.", func(r *Record) float64 { return float64(r.Sequence) })
	record("xnode_record_published_timestamp_seconds", "When the record was published.", func(r *Record) float64 { return float64(r.Published.Unix()) })
	record("xnode_record_expires_timestamp_seconds", "When the record expires.", func(r *Record) float64 { return float64(r.Expires.Unix()) })
	record("xnode_record_stale", "1 if the record has expired.", func(r *Record) float64 { return truth(r.Expired) })
	record("xnode_record_halted", "1 if the release is halted.", func(r *Record) float64 { return truth(r.Halted) })
	counter("xnode_polls_total", "Questions for the record.", func(s *Status) uint64 { return s.Counts.Polls })
	counter("xnode_poll_faults_total", "Questions that brought no news because something failed.", func(s *Status) uint64 { return s.Counts.PollFaults })
	counter("xnode_fetches_total", "Releases fetched.", func(s *Status) uint64 { return s.Counts.Fetches })
	counter("xnode_fetch_faults_total", "Fetches of a release that failed.", func(s *Status) uint64 { return s.Counts.FetchFaults })
	counter("xnode_tries_total", "Systems tried.", func(s *Status) uint64 { return s.Counts.Tries })
	counter("xnode_rollbacks_total", "Tries that went back.", func(s *Status) uint64 { return s.Counts.Rollbacks })
	counter("xnode_fetched_bytes_total", "Bytes of store paths fetched, as they came.", func(s *Status) uint64 { return s.Counts.BytesFetched })
	m.registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) add(name, help string, kind prometheus.ValueType, value func(*Status) (float64, bool)) {
	m.samples = append(m.samples, sample{prometheus.NewDesc(name, help, nil, nil), kind, value})
}

func (m *metrics) set(s *Status) { m.status.Store(s) }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.phase
	ch <- m.probe
	ch <- m.info
	for _, s := range m.samples {
		ch <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.status.Load()
	if s == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(m.phase, prometheus.GaugeValue, 1, s.Phase)
	ch <- prometheus.MustNewConstMetric(m.info, prometheus.GaugeValue, 1, m.program, s.Node.Class, s.Node.Medium, s.Systems.Current)
	seen := map[string]bool{}
	for _, p := range s.Probes {
		if !seen[p.Name] { // a second one of the name would make the whole scrape fail
			seen[p.Name] = true
			ch <- prometheus.MustNewConstMetric(m.probe, prometheus.GaugeValue, truth(p.Green), p.Name)
		}
	}
	for _, one := range m.samples {
		if v, ok := one.value(s); ok {
			ch <- prometheus.MustNewConstMetric(one.desc, one.kind, v)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
