package node

import (
	"context"
	"errors"
	"os"
	"time"
)

// auditIdle is how long the audit waits when there is nothing to read.
const auditIdle = time.Second

// audit reads all databases from disk, again and again, a round in the
// configured time, and has repaired what is damaged. It returns when ctx ends.
func (n *Node) audit(ctx context.Context) error {
	for ctx.Err() == nil {
		began := time.Now()
		for _, d := range n.all() {
			_, _, err := n.check(ctx, d, n.slowly)
			if err != nil && ctx.Err() == nil && !errors.Is(err, errAbsent) {
				n.log.Debug("audit", "database", d.name, "error", err)
			}
		}
		// Small databases are read at once; the round takes its time all the same.
		wait := max(auditIdle, n.cfg.AuditInterval-time.Since(began))
		timer := time.NewTimer(min(wait, n.cfg.AuditInterval+auditIdle))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// slowly rests after a part so long that a round of all databases takes the
// configured time.
func (n *Node) slowly(ctx context.Context, _ time.Duration) {
	var bytes int64
	for _, d := range n.all() {
		if info, err := os.Stat(d.path); err == nil {
			bytes += info.Size()
		}
	}
	if bytes <= examineBytes {
		return
	}
	timer := time.NewTimer(time.Duration(float64(n.cfg.AuditInterval) * examineBytes / float64(bytes)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
