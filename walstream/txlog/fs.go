package txlog

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileSystem is the directory that the log lives in, as far as the log sees it.
// Names are plain file names.
type fileSystem interface {
	// Create makes a file that must not exist. It is durable after SyncDir.
	Create(name string) (file, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (file, error)
	// Remove removes a file, durably after SyncDir. Who has it open may go on.
	Remove(name string) error
	// List returns the names of all files.
	List() ([]string, error)
	// SyncDir makes created and removed names durable.
	SyncDir() error
}

// file is one file of the log. ReadAt may be called at any time by anyone.
type file interface {
	io.ReaderAt
	io.WriterAt
	// Truncate sets the size.
	Truncate(size int64) error
	// Sync makes content and size durable. After an error nothing is known of
	// what was written since the last Sync.
	Sync() error
	// Size returns the size.
	Size() (int64, error)
	// Close releases the file.
	Close() error
}

// osDir is a directory of the operating system.
type osDir string

var (
	_ fileSystem = osDir("")
	_ file       = osFile{}
)

func (d osDir) Create(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d osDir) Open(name string) (file, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d osDir) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

func (d osDir) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (d osDir) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type osFile struct{ *os.File }

// Sync is fdatasync, which includes the size but no times.
func (f osFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
