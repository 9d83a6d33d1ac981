// Package durable writes small files so that a crash at any instant leaves
// either the old content or the new one, whole, and so that what a call has
// reported as written is still there after power loss.
//
//	write DIR/.NAME.RANDOM.tmp ──▶ fsync it ──▶ rename to DIR/NAME ──▶ fsync DIR
//
// A crash before the rename leaves a temporary file that nobody reads; the next
// write of the same name removes it. It is not for large files or for files
// that several processes write: callers hold the lock of the data dir.
package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the content of path, or makes the file, with the given
// permissions. On return without error content and name are durable; on an
// error the old content is still there, or possibly (if only the last fsync of
// the directory went wrong) the new one. Calls for one path must not overlap.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp)))
	}
	return SyncDir(filepath.Dir(path))
}

// CreateFile is [WriteFile] for a file that must not be there yet: an existing
// one stays as it is, and the error is [fs.ErrExist].
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	// A link, unlike a rename, refuses to replace.
	err = errors.Join(os.Link(temp, path), os.Remove(temp))
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// WriteJSON is [WriteFile] with the JSON of v, indented, since people look into
// these files when something is wrong.
func WriteJSON(path string, v any, perm fs.FileMode) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return WriteFile(path, append(data, '\n'), perm)
}

// MkdirAll makes a directory and what is missing above it, each durable before
// the next one, with permissions 0700 for those that it makes.
func MkdirAll(dir string) error {
	info, err := os.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("make directory %s: not a directory", dir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	parent := filepath.Dir(dir)
	if err := MkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return SyncDir(parent)
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// writeTemp writes a synced file beside path and returns its name. Those that
// crashes have left behind are removed first.
func writeTemp(path string, data []byte, perm fs.FileMode) (name string, err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	left, err := filepath.Glob(filepath.Join(dir, "."+base+".*.tmp"))
	if err != nil {
		return "", err
	}
	for _, old := range left {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	f, err := os.CreateTemp(dir, "."+base+".*.tmp")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
