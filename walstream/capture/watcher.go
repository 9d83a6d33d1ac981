package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What wakes a capture. Each watch is one-shot: it costs the application one
// notification until it is armed again. IN_ATTRIB and IN_MOVE_SELF tell that a
// file was unlinked or renamed, or that another one took its name.
const watchMask = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_ONESHOT

// nappers bounds the threads that sleep in the kernel at one time.
const nappers = 4

// Watcher tells many captures about changes of their files, through one inotify
// descriptor. Its methods may be called by several goroutines.
type Watcher struct {
	f    *os.File      // for reading
	fd   int           // the same; f.Fd would make it blocking
	naps chan struct{} // one for each capture that may take a nap now

	mu struct {
		sync.Mutex
		closed  bool
		watches map[int32]*watch // armed, by the kernel's number
	}
}

// watch is one file of one target. Its fields are guarded by the Watcher's mu.
type watch struct {
	target *target
	path   string // through /proc/self/fd: leads to the file that is open, whatever its name
	armed  bool
	wd     int32
}

// target is what one capture waits for.
type target struct {
	w     *Watcher
	C     chan struct{} // gets a value when one of the files has changed since it was armed
	files [2]watch      // -wal, database
	moved bool          // a file got another name, or none; guarded by w.mu
}

// NewWatcher opens an inotify descriptor. Close it with [Watcher.Close]; run it
// with [Watcher.Run].
func NewWatcher() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	// Not blocking, so that the runtime polls it and Close ends a Read.
	w := &Watcher{f: os.NewFile(uintptr(fd), "inotify"), fd: fd, naps: make(chan struct{}, nappers)}
	w.mu.watches = map[int32]*watch{}
	return w, nil
}

// Close ends Run and all watches. A second Close does nothing.
func (w *Watcher) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed {
		return nil
	}
	w.mu.closed = true
	clear(w.mu.watches)
	return w.f.Close()
}

// Run hands on notifications until ctx ends or the Watcher is closed: then it
// returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.Close() }) // nothing was written that could be lost
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err == io.EOF || err != nil:
			return fmt.Errorf("read inotify: %w", err)
		}
		w.dispatch(buf[:n])
	}
}

// dispatch reads the kernel's events: watch number, mask, cookie, length of the
// name that follows.
func (w *Watcher) dispatch(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		skip := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if skip > len(b) {
			return
		}
		b = b[skip:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for wd := range w.mu.watches {
				w.firedLocked(wd, 0)
			}
			continue
		}
		w.firedLocked(wd, mask)
	}
}

// firedLocked also handles IN_IGNORED, which says that a watch is gone: usually
// one that has fired and is not in the map any more. If it was armed again in
// the moment between, the kernel has dropped that too, and its target arms anew.
func (w *Watcher) firedLocked(wd int32, mask uint32) {
	file := w.mu.watches[wd]
	if file == nil {
		return
	}
	delete(w.mu.watches, wd)
	file.armed = false
	if mask&(unix.IN_ATTRIB|unix.IN_MOVE_SELF) != 0 {
		file.target.moved = true
	}
	file.target.wake()
}

// watch returns a target for the two open files of a database. Nothing is armed
// yet.
func (w *Watcher) watch(wal, db *os.File) *target {
	t := &target{w: w, C: make(chan struct{}, 1)}
	for i, f := range []*os.File{wal, db} {
		t.files[i] = watch{target: t, path: fmt.Sprintf("/proc/self/fd/%d", f.Fd())}
	}
	return t
}

// wake makes a value ready in C.
func (t *target) wake() {
	select {
	case t.C <- struct{}{}:
	default:
	}
}

// nap sleeps for less than a millisecond, in the kernel: a timer of the runtime
// takes a whole one when the process is idle, which is most of the time that a
// commit takes. It returns false, at once, if enough others do so.
func (t *target) nap(d time.Duration) bool {
	select {
	case t.w.naps <- struct{}{}:
	default:
		return false
	}
	defer func() { <-t.w.naps }()
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil) // cut short by a signal: as good
	return true
}

// arm sets the watches that have fired. What happened before it returns may not
// be told: look at the files after it.
func (t *target) arm() error {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if t.w.mu.closed {
		return fmt.Errorf("watch %s: %w", t.files[1].path, os.ErrClosed)
	}
	for i := range t.files {
		file := &t.files[i]
		if file.armed {
			continue
		}
		wd, err := unix.InotifyAddWatch(t.w.fd, file.path, watchMask)
		if err != nil {
			return fmt.Errorf("watch %s: %w", file.path, err)
		}
		file.armed, file.wd = true, int32(wd)
		t.w.mu.watches[file.wd] = file
	}
	return nil
}

// armed tells whether all watches are set.
func (t *target) armed() bool {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	return t.files[0].armed && t.files[1].armed
}

// takeMoved tells, once, whether the name of a file was changed.
func (t *target) takeMoved() bool {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	moved := t.moved
	t.moved = false
	return moved
}

// disarm removes the watches.
func (t *target) disarm() {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	for i := range t.files {
		file := &t.files[i]
		if !file.armed || t.w.mu.closed {
			continue
		}
		file.armed = false
		delete(t.w.mu.watches, file.wd)
		// It may have fired at this moment, which removes it as well.
		_, _ = unix.InotifyRmWatch(t.w.fd, uint32(file.wd))
	}
}
