package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/stream"
)

// pullSnapshot opens a snapshot from which another node is seeded or repaired.
func (n *Node) pullSnapshot(ctx context.Context, name string) (*stream.Snapshot, error) {
	d := n.known(name)
	if d == nil {
		return nil, fmt.Errorf("snapshot %s: %w", name, stream.ErrUnknownDatabase)
	}
	return d.snapshot(ctx)
}

// snapshot begins a snapshot at a known position: on the primary between two
// transactions of capture, on a follower between two that are applied.
func (d *database) snapshot(ctx context.Context) (*stream.Snapshot, error) {
	d.content.Lock()
	defer d.content.Unlock()
	if d.opened == nil {
		return nil, fmt.Errorf("snapshot %s: %w", d.name, stream.ErrUnknownDatabase)
	}
	if d.capture != nil {
		s, at, table, err := d.capture.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return &stream.Snapshot{
			Position: at, Time: time.Now(), PageSize: s.PageSize(), PageCount: s.PageCount(),
			Sums: table, ReadPage: s.ReadPage, Close: d.lend(s),
		}, nil
	}
	why, err := d.doubt()
	if err != nil {
		return nil, err
	}
	at := d.replica.Applied()
	if why != noDoubt || !d.replica.Fenced() || at.IsZero() || d.table.Checksum() != at.Checksum {
		return nil, fmt.Errorf("snapshot %s: %w", d.name, errUnsettled)
	}
	s, err := d.file.Snapshot(ctx, true)
	if err != nil {
		return nil, err
	}
	return &stream.Snapshot{
		Position: at, Time: time.Now(), PageSize: s.PageSize(), PageCount: s.PageCount(),
		Sums: d.table.Clone(), ReadPage: s.ReadPage, Close: d.lend(s),
	}, nil
}

// lend keeps the database open until the snapshot is closed by what it returns.
// d.content is held.
func (d *database) lend(s *sqlitedb.Snapshot) (giveBack func() error) {
	d.lent.Add(1)
	return func() error {
		defer d.lent.Done()
		return s.Close()
	}
}

// errUnsettled says that this node's own copy is not known to be whole.
var errUnsettled = errors.New("this node's copy is not settled at the moment")
