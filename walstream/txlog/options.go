package txlog

import (
	"errors"
	"log/slog"
)

// Options configure a log.
type Options struct {
	// SegmentSize is how many bytes a segment file holds before the next one is
	// begun; a segment is somewhat longer by its last record. It is also how much
	// has to be scanned at a start. Default 64 MiB.
	SegmentSize int64
	// Logger says what was cut or could not be written. Default none.
	Logger *slog.Logger

	fs fileSystem // default the operating system's
}

func (o Options) withDefaults(dir string) Options {
	if o.SegmentSize <= 0 {
		o.SegmentSize = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.fs == nil {
		o.fs = osDir(dir)
	}
	return o
}

// What a caller branches on.
var (
	// ErrGap: the transaction does not follow the log's last one.
	ErrGap = errors.New("transaction does not follow the log's last")
	// ErrTruncated: the log no longer has what follows the position.
	ErrTruncated = errors.New("position is older than the log")
	// ErrNotOnLine: the log has never been at the position, or what was there has
	// been voided.
	ErrNotOnLine = errors.New("position is not in the log")
	// ErrFailed: an fsync, or taking back a failed write, has failed before. What
	// the disk holds is not known: nothing can be appended until the log has been
	// opened again.
	ErrFailed = errors.New("log has failed")
	// ErrClosed: the log has been closed.
	ErrClosed = errors.New("log is closed")
)
