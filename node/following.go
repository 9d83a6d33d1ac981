package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lsnode/lsnode/cluster/state"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/stream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// errGap says that what came does not follow on what this node has.
var errGap = errors.New("a transaction is missing")

// errAnnounced says that a transaction is too large for a message.
var errAnnounced = errors.New("a transaction is to be pulled")

// inboxSize is how many live messages of one database wait while it applies an
// earlier one. What does not fit is pulled later.
const inboxSize = 256

// term is one primary's time as its followers see it.
type term struct {
	epoch   walstream.Epoch
	line    state.Line
	primary string                          // ID of the node that reigns
	dial    func(node string) stream.Dialer // pulls from a node
	sources func() []string                 // IDs of live nodes to seed from, best first
}

// arrival is a live message with the time at which it came.
type arrival struct {
	*stream.Message
	at time.Time
}

// following is one database's part in a term: it takes live messages from its
// inbox, pulls what is missing, logs and applies. One goroutine runs it.
type following struct {
	d       *database
	term    *term
	inbox   chan arrival
	damaged chan *examined                     // what an examination has found and is to be repaired
	missed  chan struct{}                      // holds a token when something was dropped or a newer tip is known
	told    atomic.Pointer[walstream.Position] // what the last tip said
}

func newFollowing(d *database, t *term) *following {
	return &following{d: d, term: t, inbox: make(chan arrival, inboxSize), missed: make(chan struct{}, 1), damaged: make(chan *examined, 1)}
}

// offer hands over a live message without waiting. One that finds the inbox
// full is dropped, and what is missing then pulled.
func (f *following) offer(m *stream.Message) {
	select {
	case f.inbox <- arrival{m, time.Now()}:
	default:
		f.nudge()
	}
}

// nudge makes the follower ask the primary for what it lacks.
func (f *following) nudge() {
	select {
	case f.missed <- struct{}{}:
	default:
	}
}

// run follows until ctx ends. What goes wrong is reported and tried again with
// growing waits; readers keep the last good state meanwhile.
func (f *following) run(ctx context.Context) {
	wait := retryFirst
	for ctx.Err() == nil {
		started := time.Now()
		err := f.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if sqlitedb.Refused(err) != "" || errors.Is(err, errForeign) {
			f.d.progress.become(api.StateRefused, err)
		} else {
			f.d.progress.become(api.StateCatchingUp, err)
		}
		if time.Since(started) > retryLongest {
			wait = retryFirst
		}
		f.d.log.Warn("following was interrupted", "database", f.d.name, "primary", f.term.primary, "error", err, "retry_in", wait)
		wait = pause(ctx, wait)
	}
}

// once settles, repairs if need be, and streams until something goes wrong.
func (f *following) once(ctx context.Context) error {
	repair, err := f.d.settle(ctx, f.term.line, false)
	switch {
	case errors.Is(err, errAbsent):
		f.d.progress.become(api.StateSeeding, nil)
		err = f.seed(ctx)
	case err == nil && repair:
		f.d.progress.become(api.StateRepairing, nil)
		err = f.d.repair(ctx, f.term.epoch, f.term.dial(f.term.primary), f.term.line)
	}
	if err != nil {
		return err
	}
	return f.stream(ctx)
}

// stream takes what the primary ships, in order, until it can't go on.
func (f *following) stream(ctx context.Context) error {
	f.d.progress.become(api.StateCatchingUp, nil)
	if err := f.pull(ctx, stream.Since{}); err != nil {
		return err
	}
	f.d.progress.become(api.StateStreaming, nil)
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-f.inbox:
			err = f.take(ctx, m)
		case <-f.missed:
			err = errGap
		case found := <-f.damaged:
			err = f.mend(ctx, found)
		}
		switch {
		case errors.Is(err, errGap):
			err = f.fill(ctx)
		case errors.Is(err, errAnnounced):
			err = f.pull(ctx, stream.Since{})
		default:
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		f.d.progress.become(api.StateStreaming, nil) // the pull may have been a repair
	}
}

// fill pulls what the live stream has left out, if anything.
func (f *following) fill(ctx context.Context) error {
	before := f.d.txlog.Last(f.d.name)
	err := f.pull(ctx, stream.Since{})
	if f.d.txlog.Last(f.d.name) != before {
		f.d.counts.Gaps.Inc()
	}
	return err
}

// take logs and applies one live message.
func (f *following) take(ctx context.Context, m arrival) error {
	h := &m.Header
	if h.Post.Epoch != f.term.epoch {
		return nil // a deposed primary still ships, or the next one does already
	}
	last := f.d.txlog.Last(f.d.name)
	f.d.progress.heard(h.Post, time.Now())
	switch {
	case h.Post.Compare(last) <= 0:
		return nil // pulled already
	case h.Pre != last:
		return errGap
	case m.Kind != stream.Whole:
		return errAnnounced
	}
	if err := f.d.receive(ctx, f.term.epoch, m.Txn, m.Record); err != nil {
		return err
	}
	f.d.counts.ApplyDelay.Observe(time.Since(m.at).Seconds())
	return nil
}

// receive logs a transaction that follows on the log's end, then applies it.
// record is its encoded form, nil if it has to be made. It comes in the name of
// the epoch authority.
func (d *database) receive(ctx context.Context, authority walstream.Epoch, txn *walstream.Txn, record []byte) error {
	var records [][]byte
	if record != nil {
		records = [][]byte{record}
	}
	release, err := d.gate.enter(authority)
	if err != nil {
		return err
	}
	defer release()
	if err := d.txlog.Append(txn, records); err != nil {
		return fmt.Errorf("log transaction %s: %w", txn.Post, err)
	}
	return d.applyLogged(ctx, txn)
}

// applyLogged applies a transaction that the log has and shows it.
func (d *database) applyLogged(ctx context.Context, txn *walstream.Txn) error {
	d.content.Lock()
	defer d.content.Unlock()
	err := d.replica.Apply(ctx, txn)
	d.countApplied(txn.Pre, txn.Post, err)
	if err != nil {
		return fmt.Errorf("apply transaction %s: %w", txn.Post, err)
	}
	d.progress.show(txn.Post)
	return nil
}

// pull gets everything that the primary has and this node lacks, until its
// current end. What the primary can't give, because it is out of reach or its
// log begins later, another node may have. A node that is too far behind for any
// log, or not on its line, is repaired.
func (f *following) pull(ctx context.Context, query stream.Since) error {
	after := f.d.txlog.Last(f.d.name)
	err := f.pullFrom(ctx, f.term.primary, query)
	if err != nil && ctx.Err() == nil && !errors.Is(err, txlog.ErrNotOnLine) && !unfit(err) {
		err = f.pullAround(ctx, query, err)
	}
	if errors.Is(err, txlog.ErrTruncated) || errors.Is(err, txlog.ErrNotOnLine) || unfit(err) {
		f.d.log.Info("no log can bring this copy up: repairing it by its pages",
			"database", f.d.name, "position", after, "reason", err)
		f.d.progress.become(api.StateRepairing, nil)
		return f.d.repair(ctx, f.term.epoch, f.term.dial(f.term.primary), f.term.line)
	}
	return err
}

// unfit tells whether transactions came that this copy can't apply.
func unfit(err error) bool {
	return errors.Is(err, apply.ErrChecksum) || errors.Is(err, apply.ErrPageSize)
}

// pullAround asks the other nodes for what the primary could not give, and then
// the primary for the rest. It returns why the primary could not, if that is
// still so.
func (f *following) pullAround(ctx context.Context, query stream.Since, reason error) error {
	before := f.d.txlog.Last(f.d.name)
	for _, id := range f.term.sources() {
		if id == f.term.primary {
			continue
		}
		if err := f.pullFrom(ctx, id, query); err != nil && ctx.Err() == nil {
			f.d.log.Debug("pull from another node than the primary", "database", f.d.name, "node", id, "error", err)
		}
	}
	if f.d.txlog.Last(f.d.name) == before {
		return reason
	}
	return f.pullFrom(ctx, f.term.primary, query)
}

func (f *following) pullFrom(ctx context.Context, node string, query stream.Since) error {
	query.Database, query.After = f.d.name, f.d.txlog.Last(f.d.name)
	return f.d.pullFrom(ctx, f.term.epoch, f.term.line, f.term.dial(node), query)
}

// pullFrom logs and applies what a node's log has beyond ours, as far as it is on
// the line: a node that has not settled yet may have more.
func (d *database) pullFrom(ctx context.Context, authority walstream.Epoch, line state.Line, dial stream.Dialer, query stream.Since) error {
	ctx, cancel := d.gate.under(ctx, authority)
	defer cancel()
	client := stream.NewClient(stream.ClientConfig{Dial: dial, Logger: d.log})
	for pulled, err := range client.Since(ctx, query) {
		if err == nil && !onLine(line, d.name, pulled.Txn.Post) {
			err = fmt.Errorf("pull %s: %w: it sent %s", d.name, errOffLine, pulled.Txn.Post)
		}
		if err == nil {
			err = d.receivePulled(ctx, authority, pulled)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// onLine tells whether a transaction's end is on the line. A large one's checksum
// is known only once its pages were walked over, and compared then.
func onLine(line state.Line, name string, pos walstream.Position) bool {
	p := toState(pos)
	if end, ok := line.BranchPoint(name, p.Epoch); ok && p.Checksum == 0 && end.TXID == p.TXID {
		p = end
	}
	return line.OnLine(name, p)
}

// receivePulled logs and applies a pulled transaction. The pages of a large one
// can be walked over once: they go to the log, and from there into the copy.
func (d *database) receivePulled(ctx context.Context, authority walstream.Epoch, pulled *stream.Pulled) error {
	txn, before := pulled.Txn, d.txlog.Last(d.name)
	if pulled.Record != nil {
		return d.receive(ctx, authority, txn, pulled.Record)
	}
	release, err := d.gate.enter(authority)
	if err != nil {
		return err
	}
	defer release()
	if _, err := d.txlog.AppendStream(&txn.Header, txn.Pages); err != nil {
		return fmt.Errorf("log transaction %s: %w", txn.Post, err)
	}
	for logged, err := range d.txlog.Since(d.name, before) {
		if err != nil {
			return fmt.Errorf("read back transaction: %w", err)
		}
		return d.applyLogged(ctx, logged)
	}
	return fmt.Errorf("read back transaction %s: the log does not have it", txn.Post)
}

// retryFirst and retryLongest bound the waits between attempts.
const (
	retryFirst   = 50 * time.Millisecond
	retryLongest = 2 * time.Second
)

// pause waits, unless ctx ends first, and returns the next wait.
func pause(ctx context.Context, wait time.Duration) time.Duration {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return min(2*wait, retryLongest)
}
