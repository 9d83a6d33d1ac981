package metrics

import "github.com/prometheus/client_golang/prometheus"

// Database counts what happens to one database on this node.
type Database struct {
	CapturedCommits prometheus.Counter // of the application, read from the WAL
	CapturedTxns    prometheus.Counter // transactions shipped: coalesced commits count once
	CapturedPages   prometheus.Counter // page images shipped
	AppliedCommits  prometheus.Counter // made visible on this copy
	AppliedTxns     prometheus.Counter
	ApplyDelay      prometheus.Observer // seconds from receiving a live transaction to readers seeing it
	Gaps            prometheus.Counter  // breaks in the live stream, each filled by a pull
	Scans           prometheus.Counter  // comparisons of the whole file with the page checksum table
	Repairs         prometheus.Counter  // copies repaired by the pages that differ
	RepairedPages   prometheus.Counter
	Mismatches      prometheus.Counter // times that content was not what its checksum says
	Quarantined     prometheus.Counter // commits put in quarantine
	AuditedPages    prometheus.Counter // pages read from disk to see whether they are what was written
	DamagedPages    prometheus.Counter // those that were not, each time that it was seen
	Checkpoints     prometheus.Counter // run by this node
	Restarts        prometheus.Counter // of the WAL
	ForcedRestarts  prometheus.Counter // restarts for which writers were held
	KeptRestarts    prometheus.Counter // restarts that readers put off
	LongestHold     prometheus.Gauge   // seconds that writers were held at most
	KeptFor         prometheus.Gauge   // seconds since readers keep the WAL from restarting; 0 when they don't
}

// databaseVecs holds the families that a Database is one row of.
type databaseVecs struct {
	counters   []*prometheus.CounterVec // in the order of countersOf
	gauges     []*prometheus.GaugeVec   // in the order of gaugesOf
	applyDelay *prometheus.HistogramVec
}

func countersOf(db *Database) []*prometheus.Counter {
	return []*prometheus.Counter{
		&db.CapturedCommits, &db.CapturedTxns, &db.CapturedPages, &db.AppliedCommits, &db.AppliedTxns,
		&db.Gaps, &db.Scans, &db.Repairs, &db.RepairedPages, &db.Mismatches, &db.Quarantined,
		&db.Checkpoints, &db.Restarts, &db.ForcedRestarts, &db.KeptRestarts,
		&db.AuditedPages, &db.DamagedPages,
	}
}

func gaugesOf(db *Database) []*prometheus.Gauge {
	return []*prometheus.Gauge{&db.LongestHold, &db.KeptFor}
}

func newDatabaseVecs() databaseVecs {
	c := func(name, help string) *prometheus.CounterVec { return counterVec(name, help, "database") }
	g := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "lsnode", Name: name, Help: help}, []string{"database"})
	}
	return databaseVecs{
		counters: []*prometheus.CounterVec{
			c("captured_commits_total", "Commits of the application read from the WAL."),
			c("captured_transactions_total", "Transactions shipped; coalesced commits count once."),
			c("captured_pages_total", "Page images shipped."),
			c("applied_commits_total", "Commits made visible on this copy."),
			c("applied_transactions_total", "Transactions made visible on this copy."),
			c("gaps_total", "Breaks in the live stream, each filled by a pull."),
			c("scans_total", "Comparisons of the whole file with the page checksum table."),
			c("repairs_total", "Times this copy was repaired by the pages that differ."),
			c("repaired_pages_total", "Pages that repairs have written."),
			c("checksum_mismatches_total", "Times that the content of this copy was not, or would not have been, what its checksum says."),
			c("quarantined_commits_total", "Commits put in quarantine on this node."),
			c("wal_checkpoints_total", "Checkpoints run by this node."),
			c("wal_restarts_total", "Restarts of the WAL that this node has seen or made."),
			c("wal_forced_restarts_total", "Times that writers were held so that the WAL could restart."),
			c("wal_kept_restarts_total", "Restarts of the WAL that readers have put off."),
			c("audited_pages_total", "Pages read from disk to see whether they are what was written."),
			c("damaged_pages_total", "Pages on disk that were not what was written, each time that it was seen."),
		},
		gauges: []*prometheus.GaugeVec{
			g("wal_longest_hold_seconds", "Longest time that writers were held so that the WAL could restart."),
			g("wal_kept_seconds", "Time since which readers keep the WAL from restarting; 0 when they don't."),
		},
		applyDelay: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "lsnode", Name: "apply_seconds", Buckets: buckets(),
			Help: "Time from receiving a live transaction to readers seeing it.",
		}, []string{"database"}),
	}
}

func (v databaseVecs) collectors() []prometheus.Collector {
	all := []prometheus.Collector{v.applyDelay}
	for _, c := range v.counters {
		all = append(all, c)
	}
	for _, g := range v.gauges {
		all = append(all, g)
	}
	return all
}

func (v databaseVecs) of(name string) *Database {
	db := &Database{ApplyDelay: v.applyDelay.WithLabelValues(name)}
	for i, field := range countersOf(db) {
		*field = v.counters[i].WithLabelValues(name)
	}
	for i, field := range gaugesOf(db) {
		*field = v.gauges[i].WithLabelValues(name)
	}
	return db
}

func (v databaseVecs) forget(name string) {
	for _, c := range v.counters {
		c.DeleteLabelValues(name)
	}
	for _, g := range v.gauges {
		g.DeleteLabelValues(name)
	}
	v.applyDelay.DeleteLabelValues(name)
}
