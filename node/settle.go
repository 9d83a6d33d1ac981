package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/cluster/state"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// findings say how a file compares with its node's log.
type findings struct {
	// commits lie in the file beyond the log's end: at least so many.
	commits int
	// exact: they were counted in the WAL, which follows on the log's end without
	// a gap. Otherwise the WAL was gone and only the pages differ.
	exact bool
	// ours: the file holds everything that the log does, so that what is beyond
	// may be captured as new transactions on top. It rests on the unbroken WAL,
	// or on the same file in the same boot of the host.
	ours bool
}

// settle makes the database fit to follow a line: fenced, its log cut back to
// the line, its file equal to the log's end. It tells whether only a repair
// from another node can do the last. Before anything is given up it is kept in
// quarantine. With keep, commits of the file beyond the log's end stay, if they
// may be captured on top of it: for a node that is about to be primary.
func (d *database) settle(ctx context.Context, line state.Line, keep bool) (repair bool, err error) {
	if err := d.openCopy(ctx); err != nil {
		return false, err
	}
	if err := d.suspectUnmarked(); err != nil {
		return false, err
	}
	if err := d.shut(ctx); err != nil {
		return false, err
	}
	last := d.txlog.Last(d.name)
	cut := fromState(line.Cut(d.name, toState(last), d.lookup))
	found := findings{exact: true, ours: true}
	why, err := d.doubt()
	if err != nil {
		return false, err
	}
	if why == reigned {
		if found, err = d.inspect(ctx); err != nil {
			return false, err
		}
	}
	switch {
	case why == repairing: // what was worth keeping is in quarantine
		return true, d.cutLog(cut, last)
	case cut == last && found.commits == 0 && why == reigned:
		err := d.trust(ctx, last)
		return errors.Is(err, apply.ErrChecksum), ignore(err, apply.ErrChecksum)
	case cut == last && found.commits == 0:
		return d.catchUpFile(ctx)
	case cut == last && keep && found.ours:
		return false, nil
	}
	if why == noDoubt {
		// A crash may have left the file behind the log, whose tail is to be kept too.
		if err := d.applyRest(ctx, last); err != nil && !lost(err) {
			return false, fmt.Errorf("bring %s to the log's end: %w", d.path, err)
		}
	}
	if err := d.giveUp(ctx, cut, last, found); err != nil {
		return false, err
	}
	return true, nil
}

// suspectUnmarked takes a copy for one that was written to if it has no mark and
// this node has not lifted it: somebody has, with "release" or by hand, and may
// have committed since.
func (d *database) suspectUnmarked() error {
	if d.replica.Fenced() || d.txlog.Last(d.name).IsZero() {
		return nil
	}
	mark, err := d.replica.Mark()
	if err != nil || mark > sqlitefile.MarkWAL {
		return err
	}
	why, err := d.doubt()
	if err != nil || why != noDoubt {
		return err
	}
	d.log.Warn("the copy's mark of being read-only is gone: it is compared with the log", "database", d.name, "path", d.path)
	return d.setDoubt(reigned)
}

// ignore returns err unless it is expected.
func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// lookup answers from the log for [state.Line.Cut].
func (d *database) lookup(epoch, txid uint64) (state.Position, bool) {
	pos, ok := d.txlog.Floor(d.name, walstream.Position{Epoch: walstream.Epoch(epoch), TXID: walstream.TXID(txid)})
	return toState(pos), ok
}

// inspect compares a file that the application could write with the log's end.
// The database is fenced, so that nothing is added meanwhile.
func (d *database) inspect(ctx context.Context) (findings, error) {
	last, ok := d.txlog.LastHeader(d.name)
	if !ok {
		return findings{commits: 1}, nil
	}
	commits, proven, err := capture.Uncaptured(ctx, d.file, last.Place)
	if err != nil {
		return findings{}, fmt.Errorf("count commits that were not captured: %w", err)
	}
	if proven {
		return findings{commits: commits, exact: true, ours: true}, nil
	}
	snapshot, err := d.file.Snapshot(ctx, true)
	if err != nil {
		return findings{}, err
	}
	defer snapshot.Close()
	differing, err := d.scan(ctx, snapshot)
	if err != nil {
		return findings{}, fmt.Errorf("compare the file with the log: %w", err)
	}
	if differing.Empty() {
		return findings{exact: true, ours: true}, nil
	}
	identity := d.file.Identity()
	same := identity.BootID == last.Place.BootID && identity.Inode == last.Place.Inode && identity.Device == last.Place.Device
	if !same {
		commits = 0 // what is in the WAL may be in the log as well
	}
	return findings{commits: max(commits, 1), ours: same}, nil
}

// giveUp keeps the whole database in quarantine, then voids the log's tail
// beyond cut. Nothing is voided before the copy is durable.
func (d *database) giveUp(ctx context.Context, cut, last walstream.Position, found findings) error {
	snapshot, err := d.file.Snapshot(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	entry := Kept{
		Database: d.name, Node: d.node, Path: d.path, Epoch: uint64(last.Epoch), From: cut.String(), To: last.String(),
		Logged: logged(cut, last), Uncaptured: found.commits, Exact: found.exact, Found: time.Now(),
	}
	if err := d.date(&entry, cut); err != nil {
		return err
	}
	path, err := d.quarantine.keep(entry, snapshot, d.file.PageSize())
	if err != nil {
		return err
	}
	d.showKept()
	d.counts.Quarantined.Add(float64(entry.Commits()))
	d.log.Warn("kept commits that the cluster has not in quarantine",
		"database", d.name, "id", entry.ID, "commits", entry.Commits(), "exact", entry.Exact, "from", entry.From, "to", entry.To, "path", path)
	if err := d.setDoubt(repairing); err != nil {
		return err
	}
	return d.cutLog(cut, last)
}

// cutLog voids the log's tail beyond cut.
func (d *database) cutLog(cut, last walstream.Position) error {
	if cut == last {
		return nil
	}
	if err := d.txlog.Void(d.name, cut); err != nil {
		return fmt.Errorf("void the log's tail: %w", err)
	}
	return nil
}

// trust records that the file equals the log's end, as was found out.
func (d *database) trust(ctx context.Context, last walstream.Position) error {
	if d.table.Checksum() != last.Checksum {
		if err := d.rescan(ctx); err != nil {
			return err
		}
	}
	if got := d.table.Checksum(); got != last.Checksum {
		d.counts.Mismatches.Inc()
		return fmt.Errorf("compare %s with its log: %w: it has %s, the log's end is %s", d.path, apply.ErrChecksum, got, last)
	}
	d.replica.Settle(last)
	if err := d.replica.Sync(ctx); err != nil {
		return err
	}
	d.progress.show(last)
	return d.clearDoubt()
}

// catchUpFile applies what the log has beyond the position recorded for the
// file, as one transaction, so that no reader sees an older or a mixed state.
func (d *database) catchUpFile(ctx context.Context) (repair bool, err error) {
	last := d.txlog.Last(d.name)
	err = d.applyRest(ctx, last)
	if err == nil && d.table.Checksum() != last.Checksum {
		err = d.retable(ctx, last) // it was lost, or a repair was cut off
	}
	if err == nil && !d.compared {
		err = d.compare(ctx)
		d.compared = err == nil
	}
	if lost(err) {
		d.log.Warn("the file can't be brought to the log's end: it will be repaired",
			"database", d.name, "applied", d.replica.Applied(), "log", last, "reason", err)
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("bring %s to the log's end: %w", d.path, err)
	}
	d.progress.show(last)
	return false, nil
}

// lost tells whether an error says that the log can't bring a file to its end.
func lost(err error) bool {
	for _, why := range []error{txlog.ErrNotOnLine, txlog.ErrTruncated, apply.ErrChecksum, apply.ErrPageSize, apply.ErrNotOneLine} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

func (d *database) applyRest(ctx context.Context, last walstream.Position) error {
	d.content.Lock()
	defer d.content.Unlock()
	applied := d.replica.Applied()
	if applied == last {
		return nil
	}
	txn, err := apply.Coalesce(d.txlog.Since(d.name, applied), 0)
	if err != nil || txn == nil {
		return err
	}
	err = d.replica.Apply(ctx, txn)
	d.countApplied(applied, txn.Post, err)
	return err
}

// retable makes the table of page checksums anew, which has to agree with the
// log's end then.
func (d *database) retable(ctx context.Context, last walstream.Position) error {
	if err := d.rescan(ctx); err != nil {
		return err
	}
	if got := d.table.Checksum(); got != last.Checksum {
		d.counts.Mismatches.Inc()
		return fmt.Errorf("compare %s with its log: %w: it has %s, the log's end is %s", d.path, apply.ErrChecksum, got, last)
	}
	return nil
}

// compare reads the whole file after a reboot: what the disk kept of it may be
// more or less than the log.
func (d *database) compare(ctx context.Context) error {
	difference, err := d.difference(ctx)
	if err == nil && difference > 0 {
		d.counts.Mismatches.Inc()
		err = fmt.Errorf("%w: %d pages after a reboot", apply.ErrChecksum, difference)
	}
	return err
}

func (d *database) difference(ctx context.Context) (pages int, err error) {
	snapshot, err := d.file.Snapshot(ctx, true)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	found, err := d.scan(ctx, snapshot)
	if err != nil {
		return 0, err
	}
	if found.Len() == 0 && !found.Empty() {
		return 1, nil
	}
	return found.Len(), nil
}

// rescan sets the table of page checksums to what the file holds. The database
// is fenced.
func (d *database) rescan(ctx context.Context) (err error) {
	d.content.Lock()
	defer d.content.Unlock()
	snapshot, err := d.file.Snapshot(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	d.counts.Scans.Inc()
	return fillTable(ctx, snapshot, d.table, d.replica.Applied())
}

// fillTable makes the table that of a snapshot, at a position.
func fillTable(ctx context.Context, snapshot *sqlitedb.Snapshot, table *pagesum.Table, at walstream.Position) error {
	found, err := capture.Scan(ctx, snapshot, table)
	if err != nil {
		return fmt.Errorf("read the pages of the database: %w", err)
	}
	found.Update().Commit(at)
	return nil
}
