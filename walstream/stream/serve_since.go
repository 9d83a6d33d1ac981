package stream

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// since sends all records after a position, and, if the client follows, those
// appended later, until it has what it wants or goes.
func (s *Server) since(ctx context.Context, l *link, q *sinceRequest) error {
	if err := s.knows(q.database); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &feed{log: s.cfg.Log, l: l, q: q, after: q.after, interval: s.cfg.PingInterval, patience: 2 * s.cfg.Stall}
	if q.follow {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			cancel(f.hear())
		}()
		defer func() {
			l.conn.Close() // wakes hear
			<-ended
		}()
	}
	return f.run(ctx)
}

// feed is one client that gets records.
type feed struct {
	log      Log
	l        *link
	q        *sinceRequest
	interval time.Duration
	patience time.Duration // how long an answer to a ping may take

	after   walstream.Position // what the client has when all that was sent arrives
	pinged  time.Time          // when the last ping was sent
	pending atomic.Int64       // when the oldest ping without an answer was sent, Unix ns; 0: none
}

func (f *feed) run(ctx context.Context) error {
	for {
		appended := f.log.Notify(f.q.database) // before reading, so that no append is missed
		done, err := f.sendRecords(ctx)
		if err != nil {
			return err
		}
		if done || !f.q.follow {
			return f.l.sendNow(frameEnd, appendPosition(nil, f.after))
		}
		if err := f.l.flush(); err != nil {
			return err
		}
		if err := f.wait(ctx, appended); err != nil {
			return err
		}
	}
}

// sendRecords sends what the log has now; done tells that the client then has
// all it asked for.
func (f *feed) sendRecords(ctx context.Context) (done bool, err error) {
	if f.reached() {
		return true, nil
	}
	for b, err := range f.log.Records(f.q.database, f.after) {
		if err != nil {
			return false, err
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		rec, err := walstream.DecodeRecord(b)
		if err != nil {
			return false, fmt.Errorf("read log of %s: %w", f.q.database, err)
		}
		if err := f.l.send(frameRecord, b); err != nil {
			return false, err
		}
		if rec.Last {
			f.after = rec.Post
			if f.reached() {
				return true, nil
			}
		}
		if err := f.ping(time.Now()); err != nil {
			return false, err
		}
	}
	return false, nil
}

// reached tells whether the client then has all that it asked for.
func (f *feed) reached() bool {
	return !f.q.until.IsZero() && f.after.Compare(f.q.until) >= 0
}

// wait returns at the next append. Meanwhile it pings.
func (f *feed) wait(ctx context.Context, appended <-chan struct{}) error {
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for {
		select {
		case <-appended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			if err := f.ping(now); err != nil {
				return err
			}
			if err := f.l.flush(); err != nil {
				return err
			}
		}
	}
}

// ping asks a following client for a sign of life if it is time to.
func (f *feed) ping(now time.Time) error {
	if !f.q.follow || now.Sub(f.pinged) < f.interval {
		return nil
	}
	if since := f.pending.Load(); since != 0 && now.UnixNano()-since > int64(f.patience) {
		return fmt.Errorf("%w: no sign of life for %v", ErrProtocol, f.patience)
	}
	f.pinged = now
	f.pending.CompareAndSwap(0, now.UnixNano())
	return f.l.send(framePing, nil)
}

// hear takes the client's answers until it goes, and says why it went. A later
// ping may still be unanswered when an answer comes; the next one tells.
func (f *feed) hear() error {
	if err := f.l.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		t, _, err := f.l.receiveWithin(maxControl)
		if err != nil {
			return err
		}
		if t != framePong {
			return fmt.Errorf("%w: frame of type %d while following", ErrProtocol, t)
		}
		f.pending.Store(0)
	}
}
