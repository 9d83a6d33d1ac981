package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// ErrExists is wrapped by what [Create] returns if there is a file at the path
// already, or a -wal or -journal that SQLite would take for the new file's.
var ErrExists = errors.New("a file is in the way")

// leftoverPrefix begins the names of copies that are being built.
const leftoverPrefix = ".lsnode-new-"

// CreateOptions say how [Create] builds a copy.
type CreateOptions struct {
	// Dir is where the copy is built, on the same file system as the path.
	// Otherwise, and by default, it is built beside the path, under a name that
	// begins with a dot.
	Dir string
	// FileMode and FileGroup are those of the new file. Default: 0644, and the
	// process's group.
	FileMode  os.FileMode
	FileGroup int
	// Table, if not nil, gets the checksums of the pages, and the position.
	Table *pagesum.Table
	// StatePath, if not empty, is the state file in which the copy is recorded as
	// clean, at its position, before it appears.
	StatePath string
}

// Create makes a copy that does not exist yet: a fenced database of h.PageCount
// pages, those that pages does not give being zeros. It is built aside, compared with
// h.Post's checksum, made durable, and then put at the path in one step, which
// replaces nothing. Errors wrap [ErrExists], [ErrChecksum] or [ErrMalformed].
func Create(ctx context.Context, path string, h *walstream.Header, pages walstream.Pages, o CreateOptions) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create copy %s: %w", path, err)
		}
	}()
	if !sqlitefile.ValidPageSize(h.PageSize) || h.PageCount == 0 || h.PageCount > pagesum.MaxPages {
		return fmt.Errorf("%w: %d pages of %d bytes", ErrMalformed, h.PageCount, h.PageSize)
	}
	if err := clearWay(path); err != nil {
		return err
	}
	f, err := os.CreateTemp(buildDir(o.Dir, path), leftoverPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	name := f.Name()
	defer func() {
		if name != "" {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	err = build(ctx, f, h, pages, o)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := recordNew(name, h.Post, o); err != nil {
		return err
	}
	if err := clearWay(path); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%w: %w", ErrExists, err)
		}
		return fmt.Errorf("rename: %w", err)
	}
	name = ""
	return syncDir(filepath.Dir(path))
}

// clearWay looks for what a new file at path would collide with.
func clearWay(path string) error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		_, err := os.Lstat(path + suffix)
		if err == nil {
			return fmt.Errorf("%w: %s", ErrExists, path+suffix)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// buildDir returns dir if a file can be renamed from there to path.
func buildDir(dir, path string) string {
	var a, b unix.Stat_t
	beside := filepath.Dir(path)
	if dir == "" || unix.Stat(dir, &a) != nil || unix.Stat(beside, &b) != nil || a.Dev != b.Dev {
		return beside
	}
	return dir
}

// build writes the file and makes it durable.
func build(ctx context.Context, f *os.File, h *walstream.Header, pages walstream.Pages, o CreateOptions) error {
	mode := o.FileMode
	if mode == 0 {
		mode = 0o644
	}
	if err := setOwner(f, mode, o.FileGroup); err != nil {
		return err
	}
	table := o.Table
	if table == nil {
		table = pagesum.New(h.PageSize)
	}
	if table.PageSize() != h.PageSize {
		return fmt.Errorf("%w: table %d, database %d", ErrPageSize, table.PageSize(), h.PageSize)
	}
	table.Reset()
	if err := f.Truncate(int64(h.PageCount) * int64(h.PageSize)); err != nil {
		return err
	}
	if err := writePages(ctx, f, h, pages, table); err != nil {
		return err
	}
	if got := table.Checksum(); got != h.Post.Checksum {
		return fmt.Errorf("%w: its source says %s, the pages have %s", ErrChecksum, h.Post.Checksum, got)
	}
	table.Begin(h.PageCount, nil).Commit(h.Post)
	return f.Sync()
}

func writePages(ctx context.Context, f io.WriterAt, h *walstream.Header, pages walstream.Pages, table *pagesum.Table) error {
	lockByte, next := sqlitefile.LockBytePage(h.PageSize), uint32(1)
	zero, page1 := make([]byte, h.PageSize), make([]byte, h.PageSize)
	zeros := func(to uint32) {
		for ; next < to; next++ {
			table.Set(next, pagesum.Page(next, zero))
		}
	}
	for p, err := range pages {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read pages: %w", err)
		}
		if p.No < next || p.No > h.PageCount || uint32(len(p.Data)) != h.PageSize {
			return fmt.Errorf("%w: page %d of %d bytes, of %d pages", ErrMalformed, p.No, len(p.Data), h.PageCount)
		}
		zeros(p.No)
		next = p.No + 1
		if p.No == lockByte {
			continue
		}
		table.Set(p.No, pagesum.Page(p.No, p.Data))
		data := p.Data
		if p.No == 1 {
			data = page1
			copy(data, p.Data)
			sqlitefile.SetMark(data, sqlitefile.MarkFenced)
		}
		if _, err := f.WriteAt(data, int64(p.No-1)*int64(h.PageSize)); err != nil {
			return err
		}
	}
	zeros(h.PageCount + 1)
	return ctx.Err()
}

// recordNew records the file that is about to appear: table first, then state.
func recordNew(name string, pos walstream.Position, o CreateOptions) (err error) {
	if o.Table != nil {
		if err := o.Table.Flush(pos); err != nil {
			return err
		}
	}
	if o.StatePath == "" {
		return nil
	}
	id, err := identify(name)
	if err != nil {
		return err
	}
	s, err := openState(o.StatePath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.record(state{position: pos, clean: true, file: id})
}

// identify tells which file is at name. No boot is named: a clean record is good
// in any.
func identify(name string) (sqlitedb.Identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return sqlitedb.Identity{}, fmt.Errorf("stat %s: %w", name, err)
	}
	return sqlitedb.Identity{Device: st.Dev, Inode: st.Ino}, nil
}

// RemoveLeftovers removes from a directory what a Create that was killed left
// there. No Create may run.
func RemoveLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove leftovers: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), leftoverPrefix) && e.Type().IsRegular() {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
