package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// process is the node, as its guard sees it.
type process struct {
	pid   int
	pidfd int // so that a signal never reaches another process of that number
}

// dead tells whether the process has ended, without waiting.
func (p process) dead() bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents != 0
}

// kill ends the process at once.
func (p process) kill() error {
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}

// stopped tells whether the process was stopped by a signal or a debugger.
func (p process) stopped() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return false
	}
	// The second field is the program's name in parentheses, and may hold any.
	rest := text[bytes.LastIndexByte(text, ')')+1:]
	fields := bytes.Fields(rest)
	return len(fields) > 0 && (fields[0][0] == 'T' || fields[0][0] == 't')
}

// holdsWriters tells whether the process keeps writers out of a database: it
// has the write lock, or that for recovery, through any of its descriptors. The
// kernel names no process for an OFD lock, so its descriptors are looked at one by
// one. This process need not have opened anything, and opens nothing here.
func (p process) holdsWriters(database string) bool {
	shm, err := shmOf(database)
	if err != nil {
		return false
	}
	dir := fmt.Sprintf("/proc/%d", p.pid)
	entries, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false
	}
	for _, e := range entries {
		st, err := os.Stat(filepath.Join(dir, "fd", e.Name())) // follows to the open file
		if err != nil || !os.SameFile(st, shm) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "fdinfo", e.Name()))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			if lockCovers(string(line), sqlitefile.LockWrite) || lockCovers(string(line), sqlitefile.LockRecover) {
				return true
			}
		}
	}
	return false
}

// shmOf looks at the -shm file of a database, where SQLite puts it.
func shmOf(database string) (os.FileInfo, error) {
	real, err := filepath.EvalSymlinks(database)
	if err != nil {
		return nil, err
	}
	return os.Stat(real + "-shm")
}

// lockCovers reads a line of /proc/PID/fdinfo/FD such as
//
//	lock:	1: OFDLCK ADVISORY  WRITE -1 fe:00:1234 120 120
//
// and tells whether it is an exclusive lock on the byte.
func lockCovers(line string, at int64) bool {
	text, ok := strings.CutPrefix(line, "lock:")
	if !ok {
		return false
	}
	words := strings.Fields(text)
	if len(words) != 8 || words[3] != "WRITE" {
		return false
	}
	first, err := strconv.ParseInt(words[6], 10, 64)
	if err != nil {
		return false
	}
	if words[7] == "EOF" {
		return first <= at
	}
	last, err := strconv.ParseInt(words[7], 10, 64)
	return err == nil && first <= at && at <= last
}
