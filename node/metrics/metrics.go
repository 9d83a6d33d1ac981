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
	RoleChanges   *prometheus.CounterVec // by "role": the one that began
	Failovers     prometheus.Counter     // promotions of this node that the last primary did not hand over
	Switchovers   prometheus.Counter     // promotions of this node that the last primary handed over
	Promotion     prometheus.Histogram   // seconds from the election to being open for writing
	LeaseRenewals *prometheus.CounterVec // by "result": "ok" when a majority answered, else "lost"
	LeaseLosses   prometheus.Counter     // reigns of this node that ended because the lease ran out
	LeaseUntil    prometheus.Gauge       // seconds for which this node may write still; 0 when it is not primary
	LogBytes      prometheus.Gauge       // size of the node's log on disk
	LogSync       prometheus.Histogram   // seconds that an fsync of the log took
	LogEarlyDrops prometheus.Counter     // transactions dropped from the log because of its bound on bytes, before they were old

	registry *prometheus.Registry
	vecs     databaseVecs

	mu        sync.Mutex
	databases map[string]*Database // guarded by mu
}

// buckets suit what takes from a fraction of a millisecond to tens of seconds.
func buckets() []float64 { return prometheus.ExponentialBuckets(0.000_1, 2.5, 14) }

// New returns the metrics of a node of the given version, whose gauges are read
// from status at each scrape. Status may be called from several goroutines at
// once and must not block.
func New(version string, status func() api.Status) *Metrics {
	m := &Metrics{
		RoleChanges:   counterVec("role_changes_total", "Roles that this node has taken up.", "role"),
		Failovers:     counter("failovers_total", "Promotions of this node that the last primary did not hand over."),
		Switchovers:   counter("switchovers_total", "Promotions of this node that the last primary handed over."),
		Promotion:     histogram("promotion_seconds", "Time from this node's election to being open for writing."),
		LeaseRenewals: counterVec("lease_renewals_total", "Rounds of the primary's lease, by whether a majority answered.", "result"),
		LeaseLosses:   counter("lease_losses_total", "Reigns of this node that ended because the lease ran out."),
		LeaseUntil:    gauge("lease_remaining_seconds", "Time for which this node may write still; 0 when it is not primary."),
		LogBytes:      gauge("log_bytes", "Size of the node's log on disk."),
		LogSync:       histogram("log_sync_seconds", "Time that an fsync of the log took."),
		LogEarlyDrops: counter("log_early_drops_total", "Transactions dropped from the log because of its bound on bytes."),
		registry:      prometheus.NewRegistry(),
		vecs:          newDatabaseVecs(),
		databases:     map[string]*Database{},
	}
	for _, result := range []string{"ok", "lost"} { // present before the first event, so that a rate sees it
		m.LeaseRenewals.WithLabelValues(result)
	}
	for _, role := range roles {
		m.RoleChanges.WithLabelValues(string(role))
	}
	m.registry.MustRegister(m.RoleChanges, m.Failovers, m.Switchovers, m.Promotion, m.LeaseRenewals,
		m.LeaseLosses, m.LeaseUntil, m.LogBytes, m.LogSync, m.LogEarlyDrops)
	m.registry.MustRegister(m.vecs.collectors()...)
	m.registry.MustRegister(newStatusCollector(version, status),
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

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "lsnode", Name: name, Help: help})
}

func histogram(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "lsnode", Name: name, Help: help, Buckets: buckets()})
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "lsnode", Name: name, Help: help}, labels)
}
