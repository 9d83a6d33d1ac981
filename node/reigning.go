package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/node/guard"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
	"github.com/lsnode/lsnode/walstream/stream"
)

// errDeposed says that this node may not ship any more.
var errDeposed = errors.New("the lease has ended")

// errFencedCopy says that a file that is new to the cluster is a copy of some
// cluster.
var errFencedCopy = errors.New("it is a fenced copy of a cluster's database: join that cluster (lsnode join --peers HOST:PORT), " +
	"or make it an ordinary database again (lsnode release PATH)")

// reign is one time of this node as primary.
type reign struct {
	epoch     walstream.Epoch
	publisher *stream.Publisher
	valid     func() bool                                // the lease holds now
	ctx       context.Context                            // ends with the reign
	barrier   *barrier                                   // what a majority has on disk
	handed    atomic.Bool                                // a switchover puts up the fence itself
	register  func(ctx context.Context, db string) error // a database begins in this reign
}

// reigning is one database's part in a reign. One goroutine runs it.
type reigning struct {
	d     *database
	reign *reign
}

// run captures and ships until ctx ends, and then returns nil with nothing of
// capture left; the fence is the caller's. An error means that this node can't
// be primary any longer. What may pass by itself is tried again.
func (r *reigning) run(ctx context.Context) error {
	wait := retryFirst
	for ctx.Err() == nil {
		err := r.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case errors.Is(err, errDeposed), errors.Is(err, capture.ErrFenced) && r.reign.handed.Load():
			<-ctx.Done() // the reign's end is under way
			return nil
		case errors.Is(err, capture.ErrFenced):
			return fmt.Errorf("capture %s: %w", r.d.name, err)
		}
		r.d.progress.become(api.StateRefused, err)
		r.d.log.Warn("database is not replicated", "database", r.d.name, "path", r.d.path, "error", err, "retry_in", wait)
		wait = pause(ctx, wait)
	}
	return nil
}

// once opens the database for writing and captures until its file has to be
// opened anew, or this node is to be primary no longer.
func (r *reigning) once(ctx context.Context) (err error) {
	c, err := r.begin(ctx)
	if err == nil {
		err = r.keep(ctx, c)
	}
	if ctx.Err() == nil && !errors.Is(err, errDeposed) && !errors.Is(err, capture.ErrFenced) {
		err = errors.Join(err, r.d.close(ctx))
	}
	return err
}

// keep captures. Capture holds the WAL over what passes by itself (a full
// disk), so that nothing is missed meanwhile.
func (r *reigning) keep(ctx context.Context, c *capture.Capture) (err error) {
	r.d.setCapture(c)
	defer func() {
		r.d.setCapture(nil)
		err = errors.Join(err, c.Close())
	}()
	wait := retryFirst
	for {
		r.d.progress.show(c.Position())
		r.d.progress.become(api.StatePrimary, nil)
		started := time.Now()
		err := c.Run(ctx)
		if ctx.Err() != nil || final(err) {
			return err
		}
		if time.Since(started) > retryLongest {
			wait = retryFirst
		}
		r.d.progress.become(api.StatePrimary, err)
		r.d.log.Error("commits are not captured at the moment; none is missed", "database", r.d.name, "error", err, "retry_in", wait)
		wait = pause(ctx, wait)
	}
}

// final tells whether a capture can't go on by being run again.
func final(err error) bool {
	for _, end := range []error{
		capture.ErrFenced, capture.ErrReplaced, capture.ErrPageSize, capture.ErrRewritten, capture.ErrDiscontinuous, errDeposed,
	} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// begin makes the database ready to be captured: adopted if it is new, its
// epoch record logged and shipped, its fence lifted, and what the application
// wrote while nobody captured shipped on top.
func (r *reigning) begin(ctx context.Context) (*capture.Capture, error) {
	d := r.d
	if err := d.open(ctx, true); err != nil {
		return nil, err
	}
	if d.txlog.Last(d.name).IsZero() {
		if err := r.adopt(ctx); err != nil {
			return nil, fmt.Errorf("adopt %s: %w", d.path, err)
		}
	}
	why, err := d.doubt()
	if err != nil {
		return nil, err
	}
	last, _ := d.txlog.LastHeader(d.name)
	if last.Post.Epoch < r.reign.epoch {
		if last, err = r.openEpoch(ctx, last, why); err != nil {
			return nil, err
		}
	}
	if why != reigned {
		if err := d.setDoubt(reigned); err != nil {
			return nil, err
		}
	}
	place, lifted, err := d.unfence(ctx, r.reign.valid)
	if err != nil {
		return nil, err
	}
	if lifted && why != reigned {
		last.Place = place
	}
	return r.resume(ctx, last)
}

// adopt takes a database in that has no log: its content as it is becomes
// transaction 1.
func (r *reigning) adopt(ctx context.Context) (err error) {
	d := r.d
	if mark, err := d.replica.Mark(); err != nil || mark > sqlitefile.MarkWAL {
		return errors.Join(err, errFencedCopy)
	}
	snapshot, err := d.file.Snapshot(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	found, err := d.scan(ctx, snapshot)
	if err != nil {
		return err
	}
	update := found.Update()
	h := walstream.Header{
		Database: d.name, Kind: walstream.KindBase, Time: time.Now().Truncate(time.Millisecond),
		PageSize: d.file.PageSize(), PageCount: snapshot.PageCount(),
		Post:  walstream.Position{Epoch: r.reign.epoch, TXID: 1, Checksum: update.Checksum()},
		Place: placeOf(d.file, snapshot.Header()),
	}
	update.Commit(h.Post)
	if err := d.txlog.Base(&h); err != nil {
		return err
	}
	if err := d.setDoubt(reigned); err != nil {
		return err
	}
	if err := d.flushTable(ctx); err != nil {
		return err
	}
	if err := d.guard.Opening(guard.Database{Name: d.name, Path: d.path}); err != nil {
		return err
	}
	if err := r.reign.register(ctx, d.name); err != nil {
		return err
	}
	d.log.Info("adopted database", "database", d.name, "path", d.path, "pages", h.PageCount, "page_size", h.PageSize, "position", h.Post)
	return nil
}

// placeOf says where in the WAL a header of the wal-index is.
func placeOf(file *sqlitedb.DB, h sqlitefile.IndexHeader) walstream.Place {
	id := file.Identity()
	return walstream.Place{
		BootID: id.BootID, Device: id.Device, Inode: id.Inode,
		Salt: h.Salt, Frame: h.MaxFrame, FrameCk: h.Cksum,
	}
}

// openEpoch logs and ships the record that begins the reign for a database. It
// has a place in the WAL: where a copy stands that holds the log and nothing
// else, or the one logged last, behind which the application may have gone on.
func (r *reigning) openEpoch(ctx context.Context, last walstream.Header, why doubt) (walstream.Header, error) {
	h := last
	h.Kind, h.Time, h.Pre, h.Post.Epoch = walstream.KindEpoch, time.Now().Truncate(time.Millisecond), last.Post, r.reign.epoch
	if why != reigned {
		header, err := r.d.file.Header(ctx)
		if err != nil {
			return h, err
		}
		h.Place = placeOf(r.d.file, header)
	}
	return h, r.ship(&walstream.Txn{Header: h, Pages: walstream.NoPages})
}

// resume starts capture where the log ends. If the WAL does not prove that
// nothing was missed, the pages that differ are shipped as one transaction: the
// election has made sure that the file holds everything that was logged.
func (r *reigning) resume(ctx context.Context, last walstream.Header) (*capture.Capture, error) {
	d := r.d
	c, err := capture.New(capture.Config{
		DB: d.file, Name: d.name, Epoch: r.reign.epoch, Start: last.Post, Place: last.Place,
		Table: d.table, Sink: r, Logger: d.log, Watcher: d.watcher,
	})
	if err != nil {
		return nil, err
	}
	if d.table.Checksum() == last.Post.Checksum {
		err = c.Resume(ctx)
	} else {
		err = fmt.Errorf("%w: the page checksums were lost", capture.ErrDiscontinuous)
	}
	if errors.Is(err, capture.ErrDiscontinuous) {
		d.log.Info("the WAL alone does not prove that nothing was missed: the database is compared page by page", "database", d.name, "reason", err)
		d.counts.Scans.Inc()
		var pages int
		if pages, err = c.Rebase(ctx); err == nil && pages > 0 {
			d.log.Warn("shipped what had changed meanwhile as one transaction", "database", d.name, "pages", pages)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Ship logs a captured transaction and publishes it. It implements
// [capture.Sink].
func (r *reigning) Ship(_ context.Context, txn *walstream.Txn) error {
	if err := r.ship(txn); err != nil {
		return err
	}
	r.d.progress.show(txn.Post)
	return nil
}

// ship logs before it publishes: what a follower has, a pull can find here.
func (r *reigning) ship(txn *walstream.Txn) error {
	if !r.reign.valid() {
		return fmt.Errorf("ship %s: %w", txn.Database, errDeposed)
	}
	record, whole, err := walstream.EncodeOne(txn, stream.MaxRecord)
	if err != nil {
		return fmt.Errorf("encode transaction of %s: %w", txn.Database, err)
	}
	if !whole {
		if txn.Post, err = r.d.txlog.AppendStream(&txn.Header, txn.Pages); err != nil {
			return fmt.Errorf("log transaction of %s: %w", txn.Database, err)
		}
		r.published(r.reign.publisher.Announce(&txn.Header))
		return nil
	}
	if err := r.d.txlog.Append(txn, [][]byte{record}); err != nil {
		return fmt.Errorf("log transaction of %s: %w", txn.Database, err)
	}
	r.published(r.reign.publisher.Publish(&txn.Header, record))
	return nil
}

// published notes a message that could not be sent: followers will find the gap
// and pull, so it stops nothing.
func (r *reigning) published(err error) {
	if err != nil {
		r.d.log.Debug("live message was not sent: followers will pull it", "database", r.d.name, "error", err)
	}
}

var _ capture.Sink = (*reigning)(nil)
