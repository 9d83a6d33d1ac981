package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// upkeepInterval is how often figures are read and the log is trimmed.
const upkeepInterval = time.Second

// upkeep keeps the log within its bound and the figures of WALs fresh, until
// ctx ends.
func (n *Node) upkeep(ctx context.Context) error {
	tick := time.NewTicker(upkeepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, d := range n.all() {
			d.readFigures()
		}
		// A log that could not be fsynced says nothing any more about what is on
		// disk until it is opened anew: the node has to be started again.
		if err := n.txlog.Sync(ctx); errors.Is(err, txlog.ErrFailed) {
			return fmt.Errorf("stop: %w: start the node again once the disk is well", err)
		}
		n.trimLog()
	}
}

// readFigures takes the length of the WAL into the status, unless the database
// is busy with something long.
func (d *database) readFigures() {
	if !d.content.TryLock() {
		return
	}
	defer d.content.Unlock()
	if d.opened == nil {
		d.progress.setWAL(0)
		return
	}
	d.countLocked()
	if bytes, err := d.file.WALBytes(); err == nil {
		d.progress.setWAL(bytes)
	}
}

// trimLog drops what the log's bound on bytes does not leave room for. Until
// there is an archive, older transactions serve nodes that were away: those
// that come back later are repaired by their pages.
func (n *Node) trimLog() {
	dropped, err := n.txlog.Trim(func(string) walstream.Position { return walstream.Position{} }, n.cfg.LogBytes)
	if err != nil {
		n.log.Error("trim the log", "error", err)
	}
	for _, d := range dropped {
		n.log.Info("dropped old transactions from the log", "database", d.Database, "from", d.From, "to", d.To)
		if d.Early {
			n.metrics.EarlyDrops.Add(float64(d.To.TXID - d.From.TXID))
		}
		if b := n.known(d.Database); b != nil {
			if err := b.flushTable(context.Background()); err != nil {
				n.log.Warn("flush page checksums", "database", d.Database, "error", err)
			}
		}
	}
}
