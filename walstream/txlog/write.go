package txlog

import (
	"errors"
	"fmt"
	"slices"
)

// put writes one frame at the log's end; publish is called with its location
// under mu once it is written, unless writing fails: then nothing has changed.
// The caller holds write.
func (l *Log) put(frame []byte, publish func(at, end location)) error {
	l.mu.Lock()
	err, tail, durable := l.mu.failed, l.tailLocked(), l.mu.durable
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if tail.end-tail.begin >= l.segmentSize {
		if tail, err = l.rotate(tail); err != nil {
			return err
		}
	}
	begin := tail.end // written under write only
	b := frame
	if durable != l.write.mark {
		b = append(appendMark(l.write.buf[:0], durable), frame...)
		l.write.buf = b
	}
	if err := l.writeAt(tail, b, begin); err != nil {
		return err
	}
	l.write.mark = durable
	l.write.count++
	l.mu.Lock()
	defer l.mu.Unlock()
	tail.end = begin + int64(len(b))
	publish(location{tail.no, tail.end - int64(len(frame))}, location{tail.no, tail.end})
	return nil
}

// writeAt writes at the end of a segment, or leaves it as it is: a full disk
// leaves nothing torn.
func (l *Log) writeAt(s *segment, b []byte, end int64) error {
	_, err := s.file.WriteAt(b, end)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("write segment %s: %w", segmentName(s.no), err)
	if cut := s.file.Truncate(end); cut != nil {
		return l.fail(errors.Join(err, cut))
	}
	return err
}

// writeMark notes what is durable, so that the next start need not write it
// once more. The caller holds write.
func (l *Log) writeMark() error {
	l.mu.Lock()
	err, tail, durable := l.mu.failed, l.tailLocked(), l.mu.durable
	l.mu.Unlock()
	if err != nil || durable == l.write.mark {
		return err
	}
	b := appendMark(nil, durable)
	if err := l.writeAt(tail, b, tail.end); err != nil {
		return err
	}
	l.write.mark = durable
	l.mu.Lock()
	defer l.mu.Unlock()
	tail.end += int64(len(b))
	return nil
}

// rotate begins the next segment. The syncer seals the old one. The caller
// holds write.
func (l *Log) rotate(old *segment) (*segment, error) {
	l.mu.Lock()
	roster := l.rosterLocked()
	l.mu.Unlock()
	s, err := l.createSegment(segmentHead{old.no + 1, roster.count, old.end}, roster.frames)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	old.footer = appendFooter(nil, old.end, l.mu.index.entries(old.no, old.touched, l.mu.streams))
	// A new slice: readers keep stretches of the old one.
	l.mu.segs = append(slices.Clip(l.mu.segs), s)
	l.mu.Unlock()
	l.wake()
	return s, nil
}

// roster is the roster frames of all databases.
type roster struct {
	count  uint32
	frames []byte
}

func (l *Log) rosterLocked() roster {
	var r roster
	for _, name := range l.mu.index.names() {
		if last := l.mu.index.dbs[name].last; last.Kind != 0 {
			r.frames = appendControl(r.frames, controlRoster, appendOptionalHeader(nil, &last))
			r.count++
		}
	}
	return r
}

// createSegment makes a segment file, or leaves none. Its content and name are
// durable after the next sync.
func (l *Log) createSegment(head segmentHead, roster []byte) (*segment, error) {
	name := segmentName(head.no)
	f, err := l.fs.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	b := append(appendSegmentHead(nil, head), roster...)
	if _, err := f.WriteAt(b, 0); err != nil {
		err = fmt.Errorf("create segment %s: %w", name, errors.Join(err, f.Close()))
		if gone := l.fs.Remove(name); gone != nil {
			return nil, l.fail(errors.Join(err, gone))
		}
		return nil, err
	}
	return newSegment(head, f, int64(len(b))), nil
}

// removeFile removes a segment's file, durably, so that a crash can't leave out
// one in the middle.
func (l *Log) removeFile(no uint64) error {
	if err := l.fs.Remove(segmentName(no)); err != nil {
		return err
	}
	return l.fs.SyncDir()
}

// rollback cuts the log at a location: whatever follows was written by one
// incomplete transaction, and nobody reads it. The newest goes first, so that a
// crash leaves a log in which it is just shorter. The caller holds write.
func (l *Log) rollback(to location) error {
	l.files.Lock()
	defer l.files.Unlock()
	l.mu.Lock()
	segs := l.mu.segs
	l.mu.Unlock()
	i := len(segs) - 1
	for ; segs[i].no > to.seg; i-- {
		if err := l.removeFile(segs[i].no); err != nil {
			return l.fail(fmt.Errorf("roll back: %w", err))
		}
	}
	// Synced at once: old and new content must not get mixed by a crash.
	tail := segs[i]
	if err := errors.Join(tail.file.Truncate(to.off), tail.file.Sync()); err != nil {
		return l.fail(fmt.Errorf("roll back: %w", err))
	}
	l.mu.Lock()
	l.mu.segs = slices.Clip(segs[:i+1])
	tail.end, tail.footer, tail.footerSize = to.off, nil, 0
	if edge := (location{to.seg, to.off}); edge.before(l.mu.durable) {
		l.mu.durable = edge
	}
	l.mu.Unlock()
	tail.sealed = false
	var err error
	for _, s := range segs[i+1:] {
		err = errors.Join(err, s.release())
	}
	return err
}
