package sqlitefile

import (
	"errors"
	"fmt"
	"io"
	"runtime"
)

// CurrentMark reads the mark of a database as the newest commit left it. It
// takes no lock, so that it can be asked at any time, while others write.
func CurrentMark(f Files) (byte, error) {
	for range 10000 {
		h, ok := f.Index.Header()
		if !ok {
			runtime.Gosched() // being written at this moment
			continue
		}
		mark, same, err := markAt(f, h)
		if err != nil {
			return 0, fmt.Errorf("read mark of %s: %w", f.Main.Name(), err)
		}
		// Frames of one generation are never overwritten; if the WAL has restarted
		// meanwhile, anything may have been read.
		if now, ok := f.Index.Header(); same && ok && now.Salt == h.Salt {
			return mark, nil
		}
	}
	return 0, fmt.Errorf("read mark of %s: %w", f.Main.Name(), ErrTornIndex)
}

// markAt reads the mark as of a header. same is false if the WAL has another
// generation by now.
func markAt(f Files, h IndexHeader) (mark byte, same bool, err error) {
	frame, err := f.Index.Lookup(1, h.MaxFrame)
	if err != nil {
		return 0, false, err
	}
	if frame == 0 {
		var b [offReadVersion]byte
		_, err := f.Main.ReadAt(b[:], 0)
		return Mark(b[:]), err == nil, err
	}
	var b [FrameHeaderSize + offReadVersion]byte
	if _, err := f.Wal.ReadAt(b[:], FrameOffset(frame, f.PageSize)); err != nil {
		// Cut by a restart, or damaged: the caller sees which by the header.
		if errors.Is(err, io.EOF) {
			return 0, false, nil
		}
		return 0, false, err
	}
	fh := ParseFrameHeader(b[:])
	return Mark(b[FrameHeaderSize:]), fh.PageNo == 1 && fh.Salt == h.Salt, nil
}
