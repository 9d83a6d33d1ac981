package metrics

import (
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lsnode/lsnode/node/api"
)

// Metrics is one node's metrics. The fields are counted by whoever does what
// they count.
type Metrics struct {
	RoleChanges *prometheus.CounterVec // by "role": the one that began
	EarlyDrops  prometheus.Counter     // commits dropped from the log because of its bound on bytes, before they were old

	registry *prometheus.Registry
	vecs     databaseVecs

	mu        sync.Mutex
	databases map[string]*Database // guarded by mu
}

// Sources are what is read at each scrape, so that nobody has to keep it true.
// They may be called from several goroutines at once and must not block.
type Sources struct {
	Version string            // of the program
	Status  func() api.Status // required
	// Lease returns for how many seconds this node may write still: 0 when it is
	// not primary, infinity when nobody else could be. Required.
	Lease func() float64
	// LogBytes returns the size of the node's log on disk. Required.
	LogBytes func() int64
}

// buckets suit what takes from a fraction of a millisecond to tens of seconds.
func buckets() []float64 { return prometheus.ExponentialBuckets(0.000_1, 2.5, 14) }

// New returns the metrics of a node.
func New(sources Sources) *Metrics {
	m := &Metrics{
		RoleChanges: counterVec("role_changes_total", "Roles that this node has taken up.", "role"),
		EarlyDrops:  counter("log_early_dropped_commits_total", "Commits dropped from the log because of its bound on bytes."),
		registry:    prometheus.NewRegistry(),
		vecs:        newDatabaseVecs(),
		databases:   map[string]*Database{},
	}
	for _, role := range lived { // present before the first event, so that a rate sees it
		m.RoleChanges.WithLabelValues(string(role))
	}
	m.registry.MustRegister(m.RoleChanges, m.EarlyDrops,
		gauge("lease_remaining_seconds", "Time for which this node may write still; 0 when it is not primary, +Inf when no other node could be.", sources.Lease),
		gauge("log_bytes", "Size of the node's log on disk.", func() float64 { return float64(sources.LogBytes()) }))
	m.registry.MustRegister(m.vecs.collectors()...)
	m.registry.MustRegister(newStatusCollector(sources.Version, sources.Status),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers GET /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Database returns the metrics of a database; the same ones each time it is
// called with that name, until it is forgotten.
func (m *Metrics) Database(name string) *Database {
	m.mu.Lock()
	defer m.mu.Unlock()
	db, ok := m.databases[name]
	if !ok {
		db = m.vecs.of(name)
		m.databases[name] = db
	}
	return db
}

// Forget drops the metrics of a database that is replicated no more. What is
// still counted on the old ones goes nowhere.
func (m *Metrics) Forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.databases, name)
	m.vecs.forget(name)
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "lsnode", Name: name, Help: help})
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "lsnode", Name: name, Help: help}, value)
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "lsnode", Name: name, Help: help}, labels)
}
