package guard

import (
	"io"
	"strings"
	"time"
)

// flushTime bounds how long a guard's end waits for its log to be read.
const flushTime = 200 * time.Millisecond

// Detached is a writer that never waits for whoever reads: a guard must do its
// work although the pipe of its log is full, and its reader is stopped together
// with the node. What does not fit in the queue is lost.
type Detached struct {
	queue chan []byte
	done  chan struct{} // closed when the last was written
}

// Detach returns a writer in front of w. Close ends it.
func Detach(w io.Writer) *Detached {
	d := &Detached{queue: make(chan []byte, 256), done: make(chan struct{})}
	go func() { // Close waits for it, for a moment
		defer close(d.done)
		for b := range d.queue {
			_, _ = w.Write(b) // there is nobody to be told
		}
	}()
	return d
}

// Write queues a copy of b. It never fails.
func (d *Detached) Write(b []byte) (int, error) {
	select {
	case d.queue <- append([]byte(nil), b...):
	default:
	}
	return len(b), nil
}

// Close waits a moment until all is written. Nothing is written to d any more.
func (d *Detached) Close() error {
	close(d.queue)
	select {
	case <-d.done:
	case <-time.After(flushTime):
	}
	return nil
}

// splitLines returns the lines of a small file of the kernel.
func splitLines(text []byte) []string { return strings.Split(string(text), "\n") }
