package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// directoryEvents are what may make a file in a watched directory a database:
// it is made, moved there, or written and closed.
const directoryEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_ONLYDIR

// watchDirectory calls changed whenever files in dir may have come or become
// whole, until ctx ends. Its errors are those of inotify.
func watchDirectory(ctx context.Context, dir string, changed func()) (err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	events := os.NewFile(uintptr(fd), "inotify") // non-blocking: Close ends a Read
	if _, err := unix.InotifyAddWatch(fd, dir, directoryEvents); err != nil {
		return errors.Join(fmt.Errorf("watch %s: %w", dir, err), events.Close())
	}
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer func() {
		if stop() {
			err = errors.Join(err, events.Close())
		}
	}()
	changed()
	buf := make([]byte, 64<<10)
	for {
		if _, err := events.Read(buf); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		changed()
	}
}
