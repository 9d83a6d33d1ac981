// Package metrics is what a node tells Prometheus.
//
// Two sources meet here. What a node *is* (role, positions, lag, states) is read
// from its status at each scrape, so that nobody has to keep a gauge true. What
// *happened* (commits captured, gaps, repairs, role changes) is counted where it
// happens, through the fields of [Metrics] and [Database].
//
//	api.Status ── at each scrape ──▶ gauges   ─┐
//	capture, apply, roles ── Inc ──▶ counters ─┴▶ Handler ─▶ GET /metrics
//
// Names begin with lsnode_; times are in seconds, sizes in bytes. There is no
// global registry: each node has its own. All of it is safe for concurrent use.
package metrics
