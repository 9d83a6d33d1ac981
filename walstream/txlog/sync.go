package txlog

import (
	"context"
	"errors"
	"fmt"
)

// round is one fsync that any number of callers wait for.
type round struct {
	done chan struct{} // closed when it has ended
	err  error         // set before
}

// Sync makes durable everything that was appended before the call; callers at
// the same time share fsyncs. When ctx ends first it returns ctx's error, and
// nothing is known. An fsync that fails makes the log fail, see [ErrFailed].
func (l *Log) Sync(ctx context.Context) error {
	l.mu.Lock()
	if l.mu.failed != nil {
		defer l.mu.Unlock()
		return l.mu.failed
	}
	tail := l.tailLocked()
	if (location{tail.no, tail.end}) == l.mu.durable {
		l.mu.Unlock()
		return nil
	}
	if l.mu.round == nil {
		l.mu.round = &round{done: make(chan struct{})}
	}
	r := l.mu.round
	l.mu.Unlock()
	l.wake()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// syncLoop syncs for all who wait, and seals segments. Open starts it; Close
// stops it and waits.
func (l *Log) syncLoop(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case <-l.kick:
			l.syncRound()
		case <-ctx.Done():
			l.mu.Lock()
			r := l.mu.round
			l.mu.round = nil
			l.mu.Unlock()
			if r != nil {
				r.err = ErrClosed
				close(r.done)
			}
			return
		}
	}
}

// syncRound does one round. Who comes while it runs waits for the next.
func (l *Log) syncRound() {
	l.files.Lock()
	defer l.files.Unlock()

	l.mu.Lock()
	r, segs, err := l.mu.round, l.mu.segs, l.mu.failed
	l.mu.round = nil
	tail := l.tailLocked()
	end := location{tail.no, tail.end}
	if r != nil {
		for name := range l.mu.dirty {
			if st := l.mu.index.dbs[name]; st != nil {
				st.pending = st.last.Post
			}
		}
	}
	l.mu.Unlock()

	if err == nil {
		err = l.syncFiles(segs, r != nil)
	}
	if r == nil {
		return
	}
	if err == nil {
		l.mu.Lock()
		l.mu.durable = end
		l.settleLocked()
		l.mu.Unlock()
	}
	r.err = err
	close(r.done)
}

// settleLocked makes what was pending durable.
func (l *Log) settleLocked() {
	for name := range l.mu.dirty {
		st := l.mu.index.dbs[name]
		if st == nil {
			delete(l.mu.dirty, name)
			continue
		}
		st.durable = st.pending
		if st.pending == st.last.Post {
			delete(l.mu.dirty, name)
		}
	}
}

// syncFiles makes all segments durable in their order, the last one if tail is
// set, and seals those that are full. Their names come first: a footer is proof
// that nothing before it is missing. The caller holds files.
func (l *Log) syncFiles(segs []*segment, tail bool) error {
	last := segs[len(segs)-1]
	if !last.named {
		if err := l.fs.SyncDir(); err != nil {
			return l.fail(fmt.Errorf("sync directory: %w", err))
		}
		last.named = true
	}
	for _, s := range segs[:len(segs)-1] {
		if s.sealed {
			continue
		}
		if err := l.seal(s); err != nil {
			return err
		}
	}
	if !tail {
		return nil
	}
	if err := last.file.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync segment %s: %w", segmentName(last.no), err))
	}
	return nil
}

// seal makes the records of a full segment durable, then adds the footer. That
// there is no room for a footer is no error: the next start scans the segment
// and tries again. The caller holds files.
func (l *Log) seal(s *segment) error {
	name := segmentName(s.no)
	if err := s.file.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync segment %s: %w", name, err))
	}
	l.mu.Lock()
	footer, end := s.footer, s.end
	l.mu.Unlock()
	s.sealed = true
	err := s.file.Truncate(end) // of what a crash may have left of a footer
	if err == nil {
		_, err = s.file.WriteAt(footer, end)
	}
	if err != nil {
		l.logger.Warn("no index written for a log segment", "segment", name, "error", err)
		if cut := s.file.Truncate(end); cut != nil {
			return l.fail(errors.Join(err, cut))
		}
	}
	if err := s.file.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync segment %s: %w", name, err))
	}
	l.mu.Lock()
	s.footer, s.footerSize = nil, int64(len(footer))
	l.mu.Unlock()
	return nil
}
