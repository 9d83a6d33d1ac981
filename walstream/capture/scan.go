package capture

import (
	"context"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Difference is what a database has otherwise than a table of page checksums
// says. It reads the pages from the snapshot that it was made of.
type Difference struct {
	// Marked tells that page 1 says read-only.
	Marked bool

	snapshot *sqlitedb.Snapshot
	table    *pagesum.Table
	pages    []ref
}

// Scan compares every page of a snapshot with the table, in the order of the
// file. It holds a few bytes for each page that differs, no content.
func Scan(ctx context.Context, s *sqlitedb.Snapshot, table *pagesum.Table) (*Difference, error) {
	if s.PageSize() != table.PageSize() {
		return nil, ErrPageSize
	}
	d := &Difference{snapshot: s, table: table}
	buf := make([]byte, s.PageSize())
	if s.PageCount() > 0 {
		if err := s.ReadPage(1, buf); err != nil {
			return nil, err
		}
		d.Marked = sqlitefile.Mark(buf) > sqlitefile.MarkWAL
	}
	for p, err := range s.Pages(1) {
		if err != nil {
			return nil, err
		}
		if p.No%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if sum := pagesum.Page(p.No, p.Data); sum != table.Get(p.No) {
			d.pages = append(d.pages, ref{no: p.No, sum: sum})
		}
	}
	return d, nil
}

// Len returns how many pages differ.
func (d *Difference) Len() int { return len(d.pages) }

// Empty tells that there is no difference, in the size of the database neither.
func (d *Difference) Empty() bool {
	return len(d.pages) == 0 && d.snapshot.PageCount() == d.table.PageCount()
}

// Pages walks over the pages that differ. The snapshot must still be open.
func (d *Difference) Pages(yield func(walstream.Page, error) bool) {
	buf := make([]byte, d.snapshot.PageSize())
	for _, p := range d.pages {
		if err := d.snapshot.ReadPage(p.no, buf); err != nil {
			yield(walstream.Page{}, err)
			return
		}
		if p.no == 1 {
			sqlitefile.Normalise(buf)
		}
		if !yield(walstream.Page{No: p.no, Data: buf}, nil) {
			return
		}
	}
}

// Update returns the change that makes the table that of the snapshot. It has
// not happened yet.
func (d *Difference) Update() *pagesum.Update {
	u := d.table.Begin(d.snapshot.PageCount(), nil)
	for _, p := range d.pages {
		u.Set(p.no, p.sum)
	}
	return u
}
