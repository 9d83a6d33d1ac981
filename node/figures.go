package node

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/node/metrics"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// openMetrics makes this node's metrics.
func (n *Node) openMetrics() *metrics.Metrics {
	return metrics.New(metrics.Sources{
		Version:  n.cfg.Version,
		Status:   func() api.Status { return n.Status(context.Background()) },
		Lease:    func() float64 { return remaining(n.lease.Load(), n.cluster.SoleVoter) },
		LogBytes: func() int64 { return directoryBytes(filepath.Join(n.cfg.DataDir, "log")) },
	})
}

// remaining returns for how many seconds a node with this lease may write.
func remaining(lease *cluster.Lease, sole func() bool) float64 {
	switch {
	case lease == nil || !lease.Valid():
		return 0
	case sole():
		return math.Inf(1)
	}
	return max(0, time.Until(lease.Until()).Seconds())
}

// directoryBytes returns the size of all files in a directory.
func directoryBytes(dir string) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var sum int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
	}
	return sum
}

// took counts a role that this node takes up.
func (n *Node) took(role cluster.Role) { n.metrics.RoleChanges.WithLabelValues(string(role)).Inc() }

// counted is what the metrics have of the figures of a capture and a replica,
// which both begin at zero when they are made.
type counted struct {
	capture capture.Stats
	replica apply.Stats
	hold    time.Duration // the longest of all captures
}

// countLocked brings the metrics up to what capture and replica have done. It
// holds content. It is called before either is closed as well.
func (d *database) countLocked() {
	if c := d.capture; c != nil {
		now, was := c.Stats(), d.counted.capture
		d.counts.CapturedCommits.Add(float64(now.Commits - was.Commits))
		d.counts.CapturedTxns.Add(float64(now.Transactions - was.Transactions))
		d.counts.CapturedPages.Add(float64(now.Pages - was.Pages))
		d.counts.Checkpoints.Add(float64(now.Checkpoints - was.Checkpoints))
		d.counts.Restarts.Add(float64(now.Restarts - was.Restarts))
		d.counts.ForcedRestarts.Add(float64(now.Forced - was.Forced))
		d.counted.hold = max(d.counted.hold, now.LongestHold)
		d.counts.LongestHold.Set(d.counted.hold.Seconds())
		d.counted.capture = now
	}
	if d.opened != nil {
		now, was := d.replica.Stats(), d.counted.replica
		d.counts.Checkpoints.Add(float64(now.Checkpoints - was.Checkpoints))
		d.counts.Restarts.Add(float64(now.Restarts - was.Restarts))
		d.counts.KeptRestarts.Add(float64(now.Kept - was.Kept))
		d.counts.KeptFor.Set(0)
		if !now.KeptSince.IsZero() {
			d.counts.KeptFor.Set(time.Since(now.KeptSince).Seconds())
		}
		d.counted.replica = now
	}
}

// countApplied counts a transaction that was applied, or that was not because
// of what the copy would have been after it.
func (d *database) countApplied(pre, post walstream.Position, err error) {
	switch {
	case err == nil:
		d.counts.AppliedTxns.Inc()
		d.counts.AppliedCommits.Add(float64(post.TXID - min(pre.TXID, post.TXID)))
	case errors.Is(err, apply.ErrChecksum):
		d.counts.Mismatches.Inc()
	}
}

// scan compares the whole file with the table of page checksums.
func (d *database) scan(ctx context.Context, snapshot *sqlitedb.Snapshot) (*capture.Difference, error) {
	d.counts.Scans.Inc()
	return capture.Scan(ctx, snapshot, d.table)
}
