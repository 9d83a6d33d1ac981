package txlog

import (
	"bytes"
	"errors"

	"github.com/lsnode/lsnode/walstream"
)

// damaged decides about a segment that cannot be read on at an offset: a tail
// torn by a crash is cut, everything else is an error.
func (r *recovery) damaged(i int, off int64, err error) error {
	if !isDamage(err) || errors.Is(err, walstream.ErrVersion) || errors.Is(err, errChain) {
		return err
	}
	return r.cut(i, off, err)
}

// cut cuts the log at an offset of a segment, or removes the segment as well if
// that is 0; unless the log is known to have been durable beyond.
func (r *recovery) cut(i int, off int64, cause error) error {
	at := location{r.files[i].no, off}
	if off == 0 {
		return r.cutAt(i, at, cause)
	}
	f := r.files[i]
	if err := r.cutAt(i+1, at, cause); err != nil {
		return err
	}
	return f.file.Truncate(off)
}

// cutAt removes all segments from the i-th on, since the log ends before at;
// unless it is known to have been durable beyond.
func (r *recovery) cutAt(i int, at location, cause error) error {
	// The first segment is made before anything else: without proof of more, a
	// crash came then.
	beyond := i == 0 && at.seg != 1
	size := int64(0)
	for j := max(0, i-1); j < len(r.files) && !beyond; j++ {
		f, from := r.files[j], int64(0)
		switch {
		case f.no < at.seg:
			continue
		case f.no == at.seg:
			from = at.off
		}
		var err error
		if beyond, err = r.durableBeyond(f, from, at); err != nil {
			return err
		}
		size += f.size - from
	}
	if beyond {
		var e *CorruptError
		if errors.As(cause, &e) {
			return cause
		}
		return corrupt(at, cause)
	}
	r.log.logger.Warn("log ends in what a crash left incomplete; it is cut",
		"segment", segmentName(at.seg), "offset", at.off, "bytes", size, "reason", cause)
	return r.remove(i)
}

// remove removes the files from the i-th on, the newest first: a crash leaves a
// log that is just shorter.
func (r *recovery) remove(i int) error {
	for j := len(r.files) - 1; j >= i; j-- {
		f := r.files[j]
		if err := errors.Join(f.file.Close(), r.log.removeFile(f.no)); err != nil {
			return err
		}
		r.files = r.files[:j]
	}
	return nil
}

// durableBeyond looks in a file, from an offset on, for proof that the log had
// been durable beyond a location: a footer, or a mark.
func (r *recovery) durableBeyond(f *found, from int64, at location) (bool, error) {
	const chunk = 1 << 20
	if f.no > at.seg && f.size >= segmentHeader+footerTail {
		tail := make([]byte, footerTail)
		if err := readFull(f.file, tail, f.size-footerTail); err != nil {
			return false, err
		}
		if _, _, _, err := parseFooterTail(tail, f.size); err == nil {
			return true, nil
		}
	}
	for buf := make([]byte, chunk+markSize); from < f.size; from += chunk {
		b := buf[:min(int64(len(buf)), f.size-from)]
		if err := readFull(f.file, b, from); err != nil {
			return false, err
		}
		if markBeyond(b, at) {
			return true, nil
		}
	}
	return false, nil
}

// markBeyond tells whether b holds a mark that lies beyond a location.
func markBeyond(b []byte, at location) bool {
	for {
		i := bytes.Index(b, []byte(controlMagic))
		if i < 0 {
			return false
		}
		b = b[i:]
		if len(b) >= markSize {
			kind, body, err := parseControl(b[:markSize])
			if err == nil && kind == controlMark && at.before(parseLocation(body)) {
				return true
			}
		}
		b = b[1:]
	}
}

// ready makes everything that was found durable, and sees that there is a
// segment to write to.
func (r *recovery) ready() error {
	l := r.log
	for _, f := range r.files {
		if f.seg.sealed {
			continue
		}
		if err := r.rewrite(f.seg); err != nil {
			return err
		}
	}
	if n := len(r.files); n == 0 || r.files[n-1].seg.sealed {
		if err := r.begin(n); err != nil {
			return err
		}
	}
	tail := r.files[len(r.files)-1].seg
	if err := errors.Join(tail.file.Sync(), l.fs.SyncDir()); err != nil {
		return err
	}
	for _, f := range r.files {
		f.seg.named = true
	}
	for _, st := range r.index.dbs {
		st.durable, st.pending = st.last.Post, st.last.Post
	}
	l.mu.durable = location{tail.no, tail.end}
	l.write.mark = r.mark
	return nil
}

// begin makes the first segment, or the one after the last of n sealed ones.
func (r *recovery) begin(n int) error {
	r.log.mu.index = r.index
	head, frames := segmentHead{no: 1}, []byte(nil)
	if n > 0 {
		last := r.files[n-1].seg
		r.log.mu.Lock()
		roster := r.log.rosterLocked()
		r.log.mu.Unlock()
		head, frames = segmentHead{last.no + 1, roster.count, last.end}, roster.frames
	}
	s, err := r.log.createSegment(head, frames)
	if err != nil {
		return err
	}
	r.files = append(r.files, &found{no: s.no, file: s.file, seg: s})
	return nil
}

// rewrite writes a segment once more with the same bytes, from where it is not
// known to be durable, and syncs it.
func (r *recovery) rewrite(s *segment) error {
	from := s.begin
	if r.mark.seg > s.no {
		return nil
	}
	if r.mark.seg == s.no {
		from = max(from, r.mark.off)
	} else {
		from = 0
	}
	buf := make([]byte, min(1<<20, s.end-from))
	for from < s.end {
		b := buf[:min(int64(len(buf)), s.end-from)]
		if err := readFull(s.file, b, from); err != nil {
			return corrupt(location{s.no, from}, err)
		}
		if _, err := s.file.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return s.file.Sync()
}
