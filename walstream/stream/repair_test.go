package stream

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

func TestRepairSendsWhatDiffers(t *testing.T) {
	r := seeded(t)
	const pages = 100_000
	db := newMemDB(r, 512, pages)
	own := db.table.Clone()
	some := func(n int) []uint32 {
		m := map[uint32]bool{}
		for len(m) < n {
			m[1+r.Uint32N(pages)] = true
		}
		var all []uint32
		for no := range m {
			all = append(all, no)
		}
		return all
	}
	m := &meter{}
	port, _ := serve(t, ServerConfig{Snapshot: db.snapshot})
	c := NewClient(ClientConfig{Dial: m.dialer(port.dial)})
	for _, test := range []struct {
		name    string
		changed []uint32
		most    int64 // bytes on the wire, both ways
	}{
		{"nothing", nil, 16 << 10},
		{"one page", []uint32{50_000}, 24 << 10},
		{"first and last", []uint32{1, pages}, 32 << 10},
		{"neighbours", []uint32{256, 257, 513, 514, 515}, 32 << 10},
		{"1% all over", some(pages / 100), 2 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			db.change(r, test.changed...)
			before := m.in.Load() + m.out.Load()
			sp := spool(t, t.TempDir()+"/s")
			var last Progress
			x, err := c.Repair(soon(t), Repair{Database: "db", Have: own, PageSize: 512, Spool: sp,
				Progress: func(p Progress) { last = p }})
			if err != nil {
				t.Fatal(err)
			}
			moved := m.in.Load() + m.out.Load() - before
			t.Logf("%d pages took %d bytes", len(test.changed), moved)
			db.check(t, own, x)
			if sp.Held() != len(test.changed) || moved > test.most {
				t.Errorf("%d pages, %d bytes; want %d and at most %d", sp.Held(), moved, len(test.changed), test.most)
			}
			if want := (Progress{pages, pages, uint64(len(test.changed))}); last != want {
				t.Errorf("progress ended at %+v, want %+v", last, want)
			}
			own = db.table.Clone()
			if err := sp.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
	if n := db.opened.Load(); n != 0 {
		eventually(t, "snapshots closed", func() bool { return db.opened.Load() == 0 })
	}
}

func TestRepairOfAnotherSize(t *testing.T) {
	r := seeded(t)
	for _, test := range []struct {
		name      string
		own, then int
	}{
		{"nothing to something", 0, 300}, {"to less", 2000, 700}, {"to one", 300, 1},
		{"to more", 700, 2000}, {"across a window", rangePages*windowRanges - 100, rangePages*windowRanges + 77},
	} {
		t.Run(test.name, func(t *testing.T) {
			db := newMemDB(r, 512, test.then)
			own := db.table.Clone()
			own.Resize(uint32(test.own))
			for no := uint32(1); no <= uint32(test.own); no++ {
				if own.Get(no) == 0 || no%97 == 1 {
					own.Set(no, walstream.ChecksumFlag|walstream.Checksum(no)) // of another content
				}
			}
			_, c := serve(t, ServerConfig{Snapshot: db.snapshot})
			x, err := c.Repair(soon(t), Repair{Database: "db", Have: own, PageSize: 512, Spool: spool(t, t.TempDir())})
			if err != nil {
				t.Fatal(err)
			}
			db.check(t, own, x)
		})
	}
}

func TestSeedingSurvivesInterruptions(t *testing.T) {
	r := seeded(t)
	const pages = 8_000
	db := newMemDB(r, 512, pages)
	m := &meter{limit: func() int64 { return 1 + r.Int64N(300<<10) }}
	port, _ := serve(t, ServerConfig{Snapshot: db.snapshot})
	// A process has a few connections, each of which breaks, and then dies.
	var die context.CancelFunc
	lives := 0
	dial := func(ctx context.Context) (net.Conn, error) {
		if lives--; lives < 0 {
			die()
			return nil, ctx.Err()
		}
		return m.dialer(port.dial)(ctx)
	}
	c := NewClient(ClientConfig{Dial: dial})
	dir := t.TempDir()
	var x *walstream.Txn
	attempts := 0
	for x == nil {
		// Each time another process, whose predecessor may have died in any way.
		sp := spool(t, dir)
		ctx, cancel := context.WithCancel(soon(t))
		die, lives = cancel, 1+r.IntN(3)
		if attempts >= 25 {
			m.limit, lives = nil, 1
		}
		var err error
		x, err = c.Repair(ctx, Repair{Database: "db", Spool: sp})
		cancel()
		if attempts++; x != nil {
			db.check(t, pagesum.New(512), x)
			t.Logf("seeded in %d attempts, %d bytes", attempts, m.in.Load())
			break
		}
		t.Logf("attempt %d: %d pages held: %v", attempts, sp.Held(), err)
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}
		damage(t, r, dir)
		db.change(r, 1, 1+r.Uint32N(1000), 1+r.Uint32N(1000))
		if attempts%5 == 0 {
			db.resize(len(db.seeds) - 10)
		}
	}
}

// damage does to a spool what a crash may.
func damage(t *testing.T, r *mathrand.Rand, dir string) {
	t.Helper()
	path := filepath.Join(dir, []string{spoolPages, spoolSums}[r.IntN(2)])
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	switch r.IntN(3) {
	case 0:
		err = f.Truncate(info.Size() - r.Int64N(min(info.Size(), 5000)))
	case 1:
		_, err = f.WriteAt([]byte{byte(r.Uint32())}, r.Int64N(info.Size()))
	case 2:
		_, err = f.WriteAt(make([]byte, 5000), r.Int64N(info.Size()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// While a seeding goes on, the database changes, and no snapshot is held for
// long: the rest is repaired from newer ones.
func TestSnapshotsExpireAndSeedingGoesOn(t *testing.T) {
	r := seeded(t)
	db := newMemDB(r, 4096, 4000)
	opened := 0
	_, c := serve(t, ServerConfig{SnapshotAge: time.Nanosecond, Snapshot: func(ctx context.Context, name string) (*Snapshot, error) {
		if opened++; opened > 1 && opened < 10 {
			db.change(r, 1, 2, 3)
		}
		return db.snapshot(ctx, name)
	}})
	x, err := c.Repair(soon(t), Repair{Database: "db", Spool: spool(t, t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	db.check(t, pagesum.New(4096), x)
	if opened < 5 {
		t.Errorf("%d snapshots: expiry was not tried", opened)
	}
}

func TestRepairAcrossTheLockBytePage(t *testing.T) {
	const pageSize = 65536
	lock := sqlitefile.LockBytePage(pageSize)
	r := seeded(t)
	db := newMemDB(r, pageSize, 1)
	db.seeds = make([]uint64, lock+3)
	for i := range db.seeds { // zeros where nothing changed, which makes it fast
		if no := uint32(i + 1); no != lock {
			db.table.Set(no, walstream.ChecksumFlag|walstream.Checksum(no))
		}
	}
	db.table.Resize(uint32(len(db.seeds)))
	own := db.table.Clone()
	own.Resize(lock - 2)
	db.table.Set(lock, 0)
	db.change(r, lock-1, lock+1, lock+2, lock+3)
	_, c := serve(t, ServerConfig{Snapshot: db.snapshot})
	x, err := c.Repair(soon(t), Repair{Database: "db", Have: own, PageSize: pageSize, Spool: spool(t, t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	db.check(t, own, x)
	var got []uint32
	for p := range x.Pages {
		got = append(got, p.No)
	}
	if want := []uint32{lock - 1, lock + 1, lock + 2, lock + 3}; !slices.Equal(got, want) {
		t.Errorf("pages %v, want %v", got, want)
	}
}

func TestRottenPageIsNotSent(t *testing.T) {
	r := seeded(t)
	db := newMemDB(r, 4096, 600)
	db.rotten = 300
	_, c := serve(t, ServerConfig{Snapshot: db.snapshot})
	sp := spool(t, t.TempDir())
	_, err := c.Repair(soon(t), Repair{Database: "db", Spool: sp})
	if !errors.Is(err, ErrPeer) {
		t.Fatalf("got %v, want ErrPeer", err)
	}
	db.rotten = 0 // another node
	x, err := c.Repair(soon(t), Repair{Database: "db", Spool: sp})
	if err != nil {
		t.Fatal(err)
	}
	db.check(t, pagesum.New(4096), x)
}

func TestTablesThatLieAreNoticed(t *testing.T) {
	r := seeded(t)
	db := newMemDB(r, 4096, 600)
	db.position.Checksum ^= 1
	_, c := serve(t, ServerConfig{Snapshot: db.snapshot})
	if _, err := c.Repair(soon(t), Repair{Database: "db", Spool: spool(t, t.TempDir())}); !errors.Is(err, ErrChecksum) {
		t.Errorf("a wrong checksum: %v, want ErrChecksum", err)
	}
	hole := newMemDB(r, 4096, 600)
	hole.table.Set(77, 0)
	hole.position.Checksum = hole.table.Checksum()
	_, c = serve(t, ServerConfig{Snapshot: hole.snapshot})
	if _, err := c.Repair(soon(t), Repair{Database: "db", Spool: spool(t, t.TempDir())}); !errors.Is(err, ErrPeer) {
		t.Errorf("a page without checksum: %v, want ErrPeer", err)
	}
}

func TestPageSizeChanged(t *testing.T) {
	r := seeded(t)
	old := newMemDB(r, 1024, 500)
	db := newMemDB(r, 4096, 500)
	_, c := serve(t, ServerConfig{Snapshot: db.snapshot})
	sp := spool(t, t.TempDir())
	if _, err := func() (*walstream.Txn, error) {
		_, c := serve(t, ServerConfig{Snapshot: old.snapshot})
		return c.Repair(soon(t), Repair{Database: "db", Spool: sp})
	}(); err != nil {
		t.Fatal(err)
	}
	x, err := c.Repair(soon(t), Repair{Database: "db", Have: old.table, PageSize: 1024, Spool: sp})
	if err != nil {
		t.Fatal(err)
	}
	db.check(t, pagesum.New(4096), x)
}

func TestRepairsAreLimited(t *testing.T) {
	r := seeded(t)
	db := newMemDB(r, 4096, 10)
	entered, leave := make(chan struct{}), make(chan struct{})
	_, c := serve(t, ServerConfig{MaxRepairs: 1, Snapshot: func(ctx context.Context, name string) (*Snapshot, error) {
		entered <- struct{}{}
		<-leave
		return db.snapshot(ctx, name)
	}})
	first := make(chan error, 1)
	sp := spool(t, t.TempDir())
	go func() {
		_, err := c.Repair(soon(t), Repair{Database: "db", Spool: sp})
		first <- err
	}()
	<-entered
	if _, err := c.Repair(soon(t), Repair{Database: "db", Spool: spool(t, t.TempDir())}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second repair got %v, want ErrBusy", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestSpoolOfAnotherDatabaseIsEmptied(t *testing.T) {
	r := seeded(t)
	db := newMemDB(r, 4096, 50)
	_, c := serve(t, ServerConfig{Snapshot: db.snapshot})
	dir := t.TempDir()
	sp := spool(t, dir)
	if _, err := c.Repair(soon(t), Repair{Database: "db", Spool: sp}); err != nil {
		t.Fatal(err)
	}
	if err := sp.Close(); err != nil {
		t.Fatal(err)
	}
	if sp = spool(t, dir); sp.Held() != 50 {
		t.Errorf("%d pages held after a restart, want 50", sp.Held())
	}
	sp.Close()
	other, err := OpenSpool(dir, "other")
	if err != nil {
		t.Fatal(err)
	}
	if other.Held() != 0 {
		t.Errorf("%d pages of another database", other.Held())
	}
	if err := other.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
}

// A spool that can't be written must end the repair, not make it try for ever.
func TestSpoolThatFails(t *testing.T) {
	r := seeded(t)
	_, c := serve(t, ServerConfig{Snapshot: newMemDB(r, 4096, 50).snapshot})
	sp := spool(t, t.TempDir())
	if err := sp.reset(4096); err != nil {
		t.Fatal(err)
	}
	if err := sp.sums.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Repair(soon(t), Repair{Database: "db", Spool: sp}); !errors.Is(err, ErrLocal) {
		t.Errorf("got %v, want ErrLocal", err)
	}
	if sp.Held() != 0 {
		t.Errorf("%d pages held", sp.Held())
	}
}
