package identity

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/cluster/internal/durable"
)

// ErrLocked is wrapped when another process uses the data dir.
var ErrLocked = errors.New("the data dir is in use")

// Lock keeps every other process out of a data dir. The kernel drops it when
// the process ends, however it ends; the file stays.
type Lock struct {
	file *os.File
}

// Acquire takes the lock of a data dir, which is made if it is not there, and
// does not wait: if another process holds it the error wraps [ErrLocked] and
// says who. description is for people, and is shown to whoever is refused.
func Acquire(dataDir, description string) (*Lock, error) {
	if err := durable.MkdirAll(dataDir); err != nil {
		return nil, err
	}
	path := filepath.Join(dataDir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data dir: %w", err)
	}
	if err := flock(f); err != nil {
		err = refusal(f, dataDir, err)
		return nil, errors.Join(err, f.Close())
	}
	// Nothing depends on this text, so it is not synced.
	text := fmt.Sprintf("pid %d: %s\n", os.Getpid(), strings.ReplaceAll(description, "\n", " "))
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
		return nil, fmt.Errorf("lock data dir: %w", errors.Join(err, f.Close()))
	}
	return &Lock{file: f}, nil
}

// Release gives the lock up.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release data dir: %w", err)
	}
	return nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// refusal says who holds the lock, from what the holder has written in it.
func refusal(f *os.File, dataDir string, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock data dir %s: %w", dataDir, err)
	}
	text, _ := io.ReadAll(io.LimitReader(f, 4096))
	holder := strings.TrimSpace(string(text))
	if holder == "" {
		holder = "another process"
	}
	return fmt.Errorf("lock data dir %s: %w by %s", dataDir, ErrLocked, holder)
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
