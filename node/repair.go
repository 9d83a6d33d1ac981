package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lsnode/lsnode/cluster/state"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/stream"
)

// errOffLine says that another node stands where the cluster's history does not.
var errOffLine = errors.New("the other node is not on the cluster's line")

// errBehind says that another node has less than this one's log.
var errBehind = errors.New("the other node is behind")

// seed makes the first copy, from the best live node that has one.
func (f *following) seed(ctx context.Context) error {
	var errs []error
	for _, id := range f.term.sources() {
		err := f.d.restoreCopy(ctx, f.term.epoch, f.term.dial(id), f.term.line)
		if err == nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("seed %s: %w", f.d.name, errors.Join(errs...))
}

// restoreCopy makes the copy equal to another node's: by the pages that differ
// where there is a file, else by all of them.
func (d *database) restoreCopy(ctx context.Context, authority walstream.Epoch, dial stream.Dialer, line state.Line) error {
	err := d.openCopy(ctx)
	switch {
	case errors.Is(err, errAbsent):
		return d.makeCopy(ctx, authority, dial, line)
	case err != nil:
		return err
	}
	if err := d.fence(ctx); err != nil {
		return err
	}
	return d.repair(ctx, authority, dial, line)
}

// repair gets the pages that differ from another node's, at that node's
// position, and applies them as one transaction: readers stay on. The log begins
// anew there. It rereads the file first, so that the table says what is in it.
func (d *database) repair(ctx context.Context, authority walstream.Epoch, dial stream.Dialer, line state.Line) error {
	return d.repairWith(ctx, authority, dial, line, nil)
}

// repairWith is repair that gets some pages in any case: what is wrong with them
// may be something that their checksum does not cover.
func (d *database) repairWith(ctx context.Context, authority walstream.Epoch, dial stream.Dialer, line state.Line, also []uint32) error {
	if err := d.rescan(ctx); err != nil {
		return err
	}
	for _, no := range also {
		if no <= d.table.PageCount() {
			d.table.Set(no, 0)
		}
	}
	txn, spool, err := d.fetch(ctx, dial, line, d.table, d.file.PageSize())
	if err != nil {
		return err
	}
	defer spool.Close()
	if txn.PageSize != d.file.PageSize() {
		d.log.Warn("the primary's page size has changed: the copy is made anew", "database", d.name, "was", d.file.PageSize(), "now", txn.PageSize)
		return d.replaceCopy(ctx, authority, txn)
	}
	release, err := d.gate.enter(authority)
	if err != nil {
		return err
	}
	defer release()
	if err := d.setDoubt(repairing); err != nil {
		return err
	}
	d.content.Lock()
	defer d.content.Unlock()
	if err := d.replica.Repair(ctx, txn); err != nil {
		return fmt.Errorf("repair %s: %w", d.path, err)
	}
	if err := d.replica.Sync(ctx); err != nil {
		return err
	}
	if err := d.restored(ctx, txn); err != nil {
		return err
	}
	d.counts.Repairs.Inc()
	d.counts.RepairedPages.Add(float64(spool.Held()))
	return spool.Remove()
}

// makeCopy seeds a copy that does not exist, built aside and renamed into place.
func (d *database) makeCopy(ctx context.Context, authority walstream.Epoch, dial stream.Dialer, line state.Line) error {
	txn, spool, err := d.fetch(ctx, dial, line, nil, 0)
	if err != nil {
		return err
	}
	defer spool.Close()
	if err := d.createFrom(ctx, authority, txn); err != nil {
		return err
	}
	return spool.Remove()
}

// replaceCopy makes a copy anew whose page size has changed: those who have the
// old file open keep reading what it was.
func (d *database) replaceCopy(ctx context.Context, authority walstream.Epoch, txn *walstream.Txn) error {
	if err := d.close(ctx); err != nil {
		return err
	}
	for _, path := range []string{d.path, d.path + "-wal", d.path + "-shm"} {
		if err := removeFile(path); err != nil {
			return err
		}
	}
	return d.createFrom(ctx, authority, txn)
}

func (d *database) createFrom(ctx context.Context, authority walstream.Epoch, txn *walstream.Txn) error {
	release, err := d.gate.enter(authority)
	if err != nil {
		return err
	}
	defer release()
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return fmt.Errorf("make directory of the copy: %w", err)
	}
	if err := d.buildCopy(ctx, txn); err != nil {
		return err
	}
	if err := d.restored(ctx, txn); err != nil {
		return err
	}
	return d.fence(ctx)
}

// buildCopy makes the file, with its table of page checksums and its recorded
// position.
func (d *database) buildCopy(ctx context.Context, txn *walstream.Txn) (err error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	for _, path := range []string{d.tablePath(), d.appliedPath()} {
		if err := removeFile(path); err != nil {
			return err
		}
	}
	table, err := pagesum.Open(d.tablePath(), txn.PageSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	options := d.create
	options.Table, options.StatePath = table, d.appliedPath()
	if err := apply.Create(ctx, d.path, &txn.Header, txn.Pages, options); err != nil {
		return err
	}
	return table.Flush(txn.Post)
}

// fetch gets the pages that differ into a spool on disk. It goes on where an
// earlier attempt was cut off. The caller closes the spool.
func (d *database) fetch(ctx context.Context, dial stream.Dialer, line state.Line, have stream.Sums, pageSize uint32) (*walstream.Txn, *stream.Spool, error) {
	dir := filepath.Join(d.dir, "spool")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make spool: %w", err)
	}
	spool, err := stream.OpenSpool(dir, d.name)
	if err != nil {
		return nil, nil, err
	}
	client := stream.NewClient(stream.ClientConfig{Dial: dial, Logger: d.log})
	txn, err := client.Repair(ctx, stream.Repair{
		Database: d.name, Have: have, PageSize: pageSize, Spool: spool, Progress: d.showProgress,
	})
	if err == nil && !line.OnLine(d.name, toState(txn.Post)) {
		err = fmt.Errorf("repair %s: %w: it stands at %s", d.name, errOffLine, txn.Post)
	}
	// What this node has acknowledged must not go from its log.
	own := fromState(line.Cut(d.name, toState(d.txlog.Last(d.name)), d.lookup))
	if err == nil && txn.Post.Compare(own) < 0 {
		err = fmt.Errorf("repair %s: %w: it stands at %s, this node's log at %s", d.name, errBehind, txn.Post, own)
	}
	if err != nil {
		return nil, nil, errors.Join(err, spool.Close())
	}
	return txn, spool, nil
}

// showProgress logs how far a repair or a seed is, every few seconds.
func (d *database) showProgress(p stream.Progress) {
	if now := time.Now(); now.Sub(d.reported) > progressEvery || p.Done == p.Total {
		d.reported = now
		d.log.Info("fetching pages", "database", d.name, "compared", p.Done, "of", p.Total, "received", p.Received)
	}
}

const progressEvery = 5 * time.Second

// restored lets the log begin anew where the content now is, after that is
// durable. A crash before finds a copy whose recorded position is not in the
// log, and it is repaired again.
func (d *database) restored(ctx context.Context, txn *walstream.Txn) error {
	base := txn.Header
	base.Kind, base.Pre, base.Place = walstream.KindBase, walstream.Position{}, walstream.Place{}
	if err := d.txlog.Base(&base); err != nil {
		return fmt.Errorf("begin log of %s at %s: %w", d.name, base.Post, err)
	}
	if err := d.txlog.Sync(ctx); err != nil {
		return err
	}
	if err := d.clearDoubt(); err != nil {
		return err
	}
	d.progress.show(txn.Post)
	d.log.Info("copy is whole", "database", d.name, "path", d.path, "position", txn.Post)
	return nil
}
