package pagesum

import "github.com/lsnode/lsnode/walstream"

// Update is a change of a table that has not happened yet: what the table would
// be after a transaction. It is used by one goroutine, and dropped or committed
// before the next one is begun.
type Update struct {
	t         *Table
	pageCount uint32
	checksum  walstream.Checksum
	sums      []entry
}

type entry struct {
	no  uint32
	sum walstream.Checksum
}

// Begin starts a change after which the database has pageCount pages. The
// memory of reuse, an Update that is no longer needed, is used again; it may be
// nil.
func (t *Table) Begin(pageCount uint32, reuse *Update) *Update {
	u := reuse
	if u == nil {
		u = new(Update)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	pageCount = min(pageCount, MaxPages)
	*u = Update{t: t, pageCount: pageCount, checksum: t.mu.checksum, sums: u.sums[:0]}
	for i := int(pageCount); i < len(t.mu.sums); i++ {
		u.checksum ^= t.mu.sums[i]
	}
	u.checksum |= walstream.ChecksumFlag
	return u
}

// Set sets the checksum of a page. Each page may be set once; one beyond the
// size given to Begin is ignored.
func (u *Update) Set(no uint32, sum walstream.Checksum) {
	if no == 0 || no > u.pageCount {
		return
	}
	old := u.t.Get(no)
	u.checksum = walstream.ChecksumFlag | (u.checksum ^ old ^ sum)
	u.sums = append(u.sums, entry{no, sum})
}

// Restart forgets what was set, so that the pages can be walked again.
func (u *Update) Restart() { u.t.Begin(u.pageCount, u) }

// Checksum returns the checksum of the whole database after the change.
func (u *Update) Checksum() walstream.Checksum { return u.checksum }

// Commit makes the change in the table, which is then at pos. It can't fail; the
// file follows with the next flush.
func (u *Update) Commit(pos walstream.Position) {
	t := u.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(u.pageCount) != len(t.mu.sums) {
		t.resizeLocked(u.pageCount)
	}
	for _, e := range u.sums {
		t.setLocked(e.no, e.sum)
	}
	u.sums = u.sums[:0]
	t.mu.current = pos
}
