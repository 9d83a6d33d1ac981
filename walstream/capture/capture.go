package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Capture reads the WAL of one database, commit by commit, and ships what it
// finds. Make it with New, give it its place with Resume (or Rebase), then Run
// it; Drain, Snapshot and Position may be called meanwhile. It holds the WAL
// until Close.
type Capture struct {
	cfg   Config
	db    *sqlitedb.DB
	log   *slog.Logger
	table *pagesum.Table
	ckpt  *checkpointer

	// turn is held, as one value in the channel, by whoever looks at the WAL. It
	// guards the fields that follow.
	turn    chan struct{}
	hands   *hands
	reader  *reader
	update  *pagesum.Update
	at      point
	resumed bool
	pending *batch // in memory, read and not shipped; the WAL may be gone
	forcing backoff
	forced  sqlitefile.Salt // of the generation that was last forced to its end; zero: none
	waited  time.Time       // since when a checkpoint waits though all is captured; zero: none does

	mu struct {
		sync.Mutex
		pos   walstream.Position
		place walstream.Place
		stats Stats
	}
}

// Stats counts what a Capture has done since New.
type Stats struct {
	Transactions uint64        // shipped
	Commits      uint64        // in them
	Pages        uint64        // in them
	Restarts     uint64        // of the WAL, seen
	Checkpoints  uint64        // run by capture
	Forced       uint64        // times that writers were held so that the WAL could restart
	LongestHold  time.Duration // of them
	WALFrames    uint32        // in the WAL now
	Uncopied     uint32        // of them not in the database file
}

// New makes a Capture. Nothing is opened or held before Resume.
func New(cfg Config) (*Capture, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("capture database %s: %w", cfg.Name, err)
	}
	c := &Capture{
		cfg:    cfg,
		db:     cfg.DB,
		log:    cfg.Logger.With("database", cfg.Name),
		table:  cfg.Table,
		turn:   make(chan struct{}, 1),
		reader: newReader(cfg.DB, cfg.MemoryBytes),
		update: new(pagesum.Update),
	}
	c.mu.pos, c.mu.place = cfg.Start, cfg.Place
	return c, nil
}

// Position returns the position after the last transaction that the Sink has
// taken.
func (c *Capture) Position() walstream.Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.pos
}

// Place returns where in the WAL Position is.
func (c *Capture) Place() walstream.Place {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.place
}

// Stats returns what was done so far.
func (c *Capture) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.mu.stats
	if h, ok := c.db.Index().Header(); ok {
		s.WALFrames = h.MaxFrame
		s.Uncopied = h.MaxFrame - min(c.db.Index().Backfill(), h.MaxFrame)
	}
	return s
}

// Close lets go of the WAL. Run must have returned; whoever else has the turn is
// waited for. What needs the WAL returns [ErrNotResumed] from then on.
func (c *Capture) Close() error {
	c.turn <- struct{}{}
	defer c.give()
	return c.releaseLocked()
}

// releaseLocked lets go of the WAL.
func (c *Capture) releaseLocked() error {
	var errs []error
	if c.ckpt != nil {
		errs = append(errs, c.ckpt.close())
		c.ckpt = nil
	}
	if c.hands != nil {
		errs = append(errs, c.hands.close())
		c.hands = nil
	}
	c.resumed = false
	return errors.Join(errs...)
}

// take waits for the turn.
func (c *Capture) take(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Capture) give() { <-c.turn }

// look is what one step has seen.
type look struct {
	header    sqlitefile.IndexHeader
	copied    uint32 // frames in the database file, as far as was seen
	idle      bool   // there was no reason for a step
	captured  bool   // there were new frames
	behind    bool   // something was committed during the step: look again soon
	unsettled bool   // all is copied, and yet the read is not on lock 0
}

// stepLocked captures what is committed and hands the WAL from the older read
// to a newer one. After an error nothing has moved, except that a batch in
// memory may be pending.
func (c *Capture) stepLocked(ctx context.Context) (look, error) {
	if !c.resumed {
		return look{}, ErrNotResumed
	}
	if err := c.shipPendingLocked(ctx); err != nil {
		return look{}, err
	}
	h, still, err := c.hands.reach(ctx)
	if err != nil {
		return look{}, err
	}
	l := look{header: h, copied: c.db.Index().Backfill(), captured: h.Salt != c.at.salt || h.MaxFrame != c.at.frame, behind: !still}
	if err := c.captureLocked(ctx, h); err != nil {
		return look{}, errors.Join(err, c.hands.drop())
	}
	return l, c.hands.turn()
}

// captureLocked ships everything up to the header h. The hands reach for the
// newer read and hold the older one.
func (c *Capture) captureLocked(ctx context.Context, h sqlitefile.IndexHeader) error {
	b, err := c.readLocked(h)
	if err != nil {
		return err
	}
	return c.shipLocked(ctx, b)
}

// readLocked reads everything up to the header h, after it has seen that this
// follows what was captured.
func (c *Capture) readLocked(h sqlitefile.IndexHeader) (*batch, error) {
	if h.PageSize != 0 && h.PageSize != c.db.PageSize() {
		return nil, fmt.Errorf("%w: from %d to %d", ErrPageSize, c.db.PageSize(), h.PageSize)
	}
	if what := c.brokenLocked(h); what != "" {
		return nil, &Discontinuity{What: what, SameFile: true}
	}
	return c.reader.read(c.at, c.table.PageCount(), h)
}

// brokenLocked says why h can't follow the point that was captured, or "". By
// SQLite's locks none of this can happen, as long as they are respected.
func (c *Capture) brokenLocked(h sqlitefile.IndexHeader) string {
	switch {
	case h.Salt != c.at.salt && c.hands.grip == gripMark && c.at.frame > 0:
		return "the WAL restarted although a read held it"
	case h.Salt == c.at.salt && h.MaxFrame < c.at.frame:
		return fmt.Sprintf("the WAL has %d frames, of which %d were captured", h.MaxFrame, c.at.frame)
	case h.Salt == c.at.salt && h.MaxFrame == c.at.frame && h.MaxFrame > 0 && h.Cksum != c.at.cksum:
		return fmt.Sprintf("frame %d has changed", h.MaxFrame)
	}
	return ""
}

// shipLocked ships a batch and then lets table, place and position follow.
func (c *Capture) shipLocked(ctx context.Context, b *batch) error {
	if b.marked {
		return ErrFenced
	}
	if b.commits == 0 {
		c.reachedLocked(b.to, c.Position())
		return nil
	}
	u := c.table.Begin(b.pageCount, c.update)
	for _, r := range b.refs {
		u.Set(r.no, r.sum)
	}
	t := walstream.Txn{Header: c.header(b.pageCount, b.commits, u.Checksum(), b.to), Pages: b.pages}
	if err := c.cfg.Sink.Ship(ctx, &t); err != nil {
		return fmt.Errorf("ship %s of %s: %w", t.Post, c.cfg.Name, err)
	}
	u.Commit(t.Post)
	c.reachedLocked(b.to, t.Post)
	c.countLocked(b.commits, len(b.refs))
	return nil
}

// header returns that of the next transaction.
func (c *Capture) header(pageCount uint32, commits int, sum walstream.Checksum, to point) walstream.Header {
	pre := c.Position()
	return walstream.Header{
		Database:  c.cfg.Name,
		Kind:      walstream.KindPages,
		PageSize:  c.db.PageSize(),
		PageCount: pageCount,
		Time:      time.Now().Truncate(time.Millisecond),
		Pre:       pre,
		Post:      walstream.Position{Epoch: c.cfg.Epoch, TXID: pre.TXID + walstream.TXID(commits), Checksum: sum},
		Place:     placeOf(c.db, to),
	}
}

func placeOf(db *sqlitedb.DB, p point) walstream.Place {
	id := db.Identity()
	return walstream.Place{
		BootID: id.BootID, Device: id.Device, Inode: id.Inode,
		Salt: [2]uint32(p.salt), Frame: p.frame, FrameCk: [2]uint32(p.cksum),
	}
}

func pointOf(p walstream.Place) point {
	return point{sqlitefile.Salt(p.Salt), p.Frame, sqlitefile.Cksum(p.FrameCk)}
}

// reachedLocked is the one place where position and place move.
func (c *Capture) reachedLocked(to point, pos walstream.Position) {
	restarted := to.salt != c.at.salt
	c.at = to
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.pos, c.mu.place = pos, placeOf(c.db, to)
	if restarted {
		c.mu.stats.Restarts++
	}
}

func (c *Capture) countLocked(commits, pages int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.stats.Transactions++
	c.mu.stats.Commits += uint64(commits)
	c.mu.stats.Pages += uint64(pages)
}

// shipPendingLocked ships what was read while writers were held.
func (c *Capture) shipPendingLocked(ctx context.Context) error {
	if c.pending == nil {
		return nil
	}
	if err := c.shipLocked(ctx, c.pending); err != nil {
		return err
	}
	c.pending = nil
	return nil
}
