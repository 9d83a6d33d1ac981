package metrics

import "github.com/prometheus/client_golang/prometheus"

// Database counts what happens to one database on this node.
type Database struct {
	CapturedCommits prometheus.Counter // of the application, read from the WAL
	CapturedTxns    prometheus.Counter // transactions shipped: coalesced commits count once
	CapturedBytes   prometheus.Counter // page images shipped, before compression
	CaptureDelay    prometheus.Observer
	AppliedCommits  prometheus.Counter // made visible on this copy
	AppliedTxns     prometheus.Counter
	AppliedBytes    prometheus.Counter // page images written to this copy
	ApplyDelay      prometheus.Observer
	Gaps            prometheus.Counter // breaks in the stream, each filled by a pull
	Scans           prometheus.Counter // comparisons of the whole file with the page checksum table
	Repairs         prometheus.Counter // copies repaired by the pages that differ
	RepairedPages   prometheus.Counter
	Mismatches      prometheus.Counter // transactions after which the checksum was not the primary's
	Quarantined     prometheus.Counter // commits put in quarantine
	ReaderStalls    prometheus.Counter // WAL restarts that a long-running reader put off
}

// databaseVecs holds the families that a Database is one row of.
type databaseVecs struct {
	counters   []*prometheus.CounterVec   // in the order of Database's counters
	histograms []*prometheus.HistogramVec // CaptureDelay, ApplyDelay
}

func newDatabaseVecs() databaseVecs {
	c := func(name, help string) *prometheus.CounterVec { return counterVec(name, help, "database") }
	h := func(name, help string) *prometheus.HistogramVec {
		opts := prometheus.HistogramOpts{Namespace: "lsnode", Name: name, Help: help, Buckets: buckets()}
		return prometheus.NewHistogramVec(opts, []string{"database"})
	}
	return databaseVecs{
		counters: []*prometheus.CounterVec{
			c("captured_commits_total", "Commits of the application read from the WAL."),
			c("captured_transactions_total", "Transactions shipped; coalesced commits count once."),
			c("captured_bytes_total", "Page images shipped, before compression."),
			c("applied_commits_total", "Commits made visible on this copy."),
			c("applied_transactions_total", "Transactions made visible on this copy."),
			c("applied_bytes_total", "Page images written to this copy."),
			c("gaps_total", "Breaks in the stream, each filled by a pull."),
			c("scans_total", "Comparisons of the whole file with the page checksum table."),
			c("repairs_total", "Times this copy was repaired by the pages that differ."),
			c("repaired_pages_total", "Pages that repairs have changed."),
			c("checksum_mismatches_total", "Transactions after which the checksum was not the primary's."),
			c("quarantined_commits_total", "Commits put in quarantine on this node."),
			c("wal_restart_stalls_total", "Restarts of the WAL that a long-running reader put off."),
		},
		histograms: []*prometheus.HistogramVec{
			h("capture_seconds", "Time from noticing a commit to having shipped it."),
			h("apply_seconds", "Time from receiving a transaction to readers seeing it."),
		},
	}
}

func (v databaseVecs) collectors() []prometheus.Collector {
	var all []prometheus.Collector
	for _, c := range v.counters {
		all = append(all, c)
	}
	for _, h := range v.histograms {
		all = append(all, h)
	}
	return all
}

func (v databaseVecs) of(name string) *Database {
	db := &Database{
		CaptureDelay: v.histograms[0].WithLabelValues(name),
		ApplyDelay:   v.histograms[1].WithLabelValues(name),
	}
	for i, field := range []*prometheus.Counter{
		&db.CapturedCommits, &db.CapturedTxns, &db.CapturedBytes, &db.AppliedCommits, &db.AppliedTxns, &db.AppliedBytes,
		&db.Gaps, &db.Scans, &db.Repairs, &db.RepairedPages, &db.Mismatches, &db.Quarantined, &db.ReaderStalls,
	} {
		*field = v.counters[i].WithLabelValues(name)
	}
	return db
}

func (v databaseVecs) forget(name string) {
	for _, c := range v.counters {
		c.DeleteLabelValues(name)
	}
	for _, h := range v.histograms {
		h.DeleteLabelValues(name)
	}
}
