package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
)

// Find returns the entry of an ID, or of the beginning of one that no other
// entry has.
func (q Quarantine) Find(id string) (Kept, error) {
	entries, err := q.List()
	var found []Kept
	for _, e := range entries {
		if e.ID == id {
			return e, nil
		}
		if id != "" && strings.HasPrefix(e.ID, id) {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Kept{}, errors.Join(fmt.Errorf("find quarantine entry %q: there is none in %s", id, q.dir), err)
	}
	return Kept{}, fmt.Errorf("find quarantine entry %q: %d entries begin so: give more of it", id, len(found))
}

// Copy returns the path of the database that an entry keeps: a plain SQLite
// file, in rollback mode, that nothing else has open.
func (q Quarantine) Copy(entry Kept) string { return filepath.Join(q.dir, entry.ID, entry.File) }

// errExists says that an export would overwrite something.
var errExists = errors.New("there is a file already: give --force to put the export in its place")

// Export writes an entry's database to a path, as an ordinary SQLite file. What
// is there is replaced only with force; the old file or the new one is there at
// any instant, and the new one is durable on return. A file that has a WAL or a
// journal beside it is never replaced: SQLite would take that for the new file's.
func (q Quarantine) Export(entry Kept, path string, force bool) (err error) {
	for _, suffix := range []string{"-wal", "-journal"} {
		if _, err := os.Lstat(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("export %s: %s is there, which SQLite would take for a part of the new file", entry.ID, path+suffix), err)
		}
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return fmt.Errorf("export %s to %s: %w", entry.ID, path, errExists)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("export %s to %s: %w", entry.ID, path, err)
		}
	}()
	tmp, err := copyBeside(q.Copy(entry), path)
	if err != nil {
		return err
	}
	flags := uint(unix.RENAME_NOREPLACE)
	if force {
		flags = 0
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, flags); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = errExists
		}
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

// copyBeside copies a file that no SQLite connection of this process has open
// into a new one in the directory of path. It is durable, but for its name.
func copyBeside(from, path string) (tmp string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.CreateTemp(filepath.Dir(path), ".lsnode-export-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	if _, err := io.Copy(out, in); err != nil {
		return "", err
	}
	return out.Name(), out.Sync()
}

// Drop removes an entry for good. After a crash it is there, whole, or gone.
func (q Quarantine) Drop(entry Kept) error {
	aside := filepath.Join(q.dir, ".dropped-"+entry.ID)
	if err := os.Rename(filepath.Join(q.dir, entry.ID), aside); err != nil {
		return fmt.Errorf("drop quarantine entry %s: %w", entry.ID, err)
	}
	if err := syncDir(q.dir); err != nil {
		return err
	}
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("drop quarantine entry %s: %w", entry.ID, err)
	}
	return nil
}

// sweep removes what crashes have left of entries that were never whole, or
// were dropped. Nobody may be keeping anything meanwhile.
func (q Quarantine) sweep() error {
	dirs, err := os.ReadDir(q.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, d := range dirs {
		if strings.HasPrefix(d.Name(), ".partial-") || strings.HasPrefix(d.Name(), ".dropped-") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(q.dir, d.Name())))
		}
	}
	return err
}

// date says in an entry when the commits beyond cut were made, as far as it can
// be known.
func (d *database) date(entry *Kept, cut walstream.Position) error {
	if entry.Logged > 0 {
		for txn, err := range d.txlog.Since(d.name, cut) {
			if err != nil {
				// Nothing is lost by it but the time, and the file has to be kept first.
				d.log.Warn("the log does not say when the first of these commits was made", "database", d.name, "error", err)
				break
			}
			if txn.Kind != walstream.KindEpoch {
				entry.Begun = txn.Time
				break
			}
		}
		if last, ok := d.txlog.LastHeader(d.name); ok {
			entry.Ended = last.Time
		}
	}
	if entry.Uncaptured > 0 {
		info, err := d.file.Wal().Stat()
		if err != nil {
			return fmt.Errorf("see when the WAL was written: %w", err)
		}
		entry.Written = info.ModTime()
	}
	return nil
}

// showKept takes into the status how many commits are in quarantine.
func (d *database) showKept() {
	sums, err := d.quarantine.commits()
	if err != nil {
		d.log.Warn("some of the quarantine can't be read", "error", err)
	}
	d.progress.setKept(sums[d.name])
}

// knowKept clears away what a crash has left in quarantine, and makes this node
// know the databases of which commits are kept.
func (n *Node) knowKept() error {
	if err := n.quarantine.sweep(); err != nil {
		return fmt.Errorf("clear quarantine: %w", err)
	}
	sums, err := n.quarantine.commits()
	if err != nil {
		n.log.Warn("some of the quarantine can't be read", "error", err)
	}
	for name, commits := range sums {
		if d, err := n.database(name); err == nil {
			d.progress.setKept(commits)
		}
	}
	return nil
}

// watchKept sees when a person has dropped an entry, until ctx ends.
func (n *Node) watchKept(ctx context.Context) error {
	tick := time.NewTicker(upkeepInterval)
	defer tick.Stop()
	var seen time.Time
	for {
		if info, err := os.Stat(n.quarantine.dir); err == nil && !info.ModTime().Equal(seen) {
			seen = info.ModTime()
			for _, d := range n.all() {
				d.showKept()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
