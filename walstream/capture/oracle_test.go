package capture_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// oracle is a Sink that builds a plain copy of the database from what is
// shipped, and checks each transaction against the rules.
type oracle struct {
	mu      sync.Mutex
	size    int
	pages   []byte
	pos     walstream.Position
	place   walstream.Place
	txns    int
	fail    func(t *walstream.Txn) error // asked before a transaction is taken
	changed chan struct{}                // closed at the next transaction
}

func newOracle() *oracle { return &oracle{changed: make(chan struct{})} }

func (o *oracle) Ship(_ context.Context, t *walstream.Txn) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		if err := o.fail(t); err != nil {
			return err
		}
	}
	if err := o.apply(t); err != nil {
		return fmt.Errorf("%w: transaction %s: %w", errOracle, t.Post, err)
	}
	o.pos, o.place = t.Post, t.Place
	o.txns++
	close(o.changed)
	o.changed = make(chan struct{})
	return nil
}

var errOracle = errors.New("the rules were broken")

func (o *oracle) apply(t *walstream.Txn) error {
	if t.Pre != o.pos {
		return fmt.Errorf("begins at %s, not at %s", t.Pre, o.pos)
	}
	if t.Post.TXID <= t.Pre.TXID || t.Post.Epoch == 0 || t.Kind != walstream.KindPages || t.Place == (walstream.Place{}) {
		return fmt.Errorf("header %+v", t.Header)
	}
	o.size = int(t.PageSize)
	old := len(o.pages) / o.size
	count := int(t.PageCount)
	if count < old {
		o.pages = o.pages[:count*o.size]
	}
	o.pages = append(o.pages, make([]byte, count*o.size-len(o.pages))...)
	missing := max(count-old, 0)
	lock := sqlitefile.LockBytePage(t.PageSize)
	if int(lock) > old && int(lock) <= count {
		missing--
	}
	for range 2 { // it may be walked more than once
		last, grown := uint32(0), 0
		for p, err := range t.Pages {
			switch {
			case err != nil:
				return err
			case p.No <= last || p.No > t.PageCount || p.No == lock || len(p.Data) != o.size:
				return fmt.Errorf("page %d of %d after page %d", p.No, count, last)
			case p.No == 1 && sqlitefile.Mark(p.Data) != sqlitefile.MarkWAL:
				return errors.New("page 1 is not normalised")
			}
			last = p.No
			if int(p.No) > old {
				grown++
			}
			copy(o.pages[int(p.No-1)*o.size:], p.Data)
		}
		if grown != missing {
			return fmt.Errorf("%d pages of growth are there, %d expected", grown, missing)
		}
	}
	return nil
}

// checksum is that of LTX's own library over the copy.
func (o *oracle) checksum() walstream.Checksum {
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := walstream.ChecksumFlag
	for no := 1; no <= len(o.pages)/max(o.size, 1); no++ {
		if uint32(no) != ltx.LockPgno(uint32(o.size)) {
			sum = sum.XOR(walstream.Checksum(ltx.ChecksumPage(uint32(no), o.pages[(no-1)*o.size:no*o.size])))
		}
	}
	return sum
}

func (o *oracle) position() walstream.Position {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pos
}

// world is a database with its capture.
type world struct {
	t      testing.TB
	path   string
	db     *sqlitedb.DB
	table  *pagesum.Table
	oracle *oracle
	c      *capture.Capture
	stop   func() error
}

// newDatabase makes a database in WAL mode with the sqlite3 shell.
func newDatabase(t testing.TB, pragmas ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	shell(t, path, append(pragmas, "pragma journal_mode=wal", "create table t(k integer primary key, v)",
		"create table log(id integer primary key)", "insert into t(v) values('first')")...)
	return path
}

// newWorld opens the database; capture is begun with begin.
func newWorld(t testing.TB, path string) *world {
	t.Helper()
	w := &world{t: t, path: path, oracle: newOracle()}
	w.openDB()
	w.table = pagesum.New(w.db.PageSize())
	t.Cleanup(w.close)
	return w
}

func (w *world) openDB() {
	w.t.Helper()
	var err error
	if w.db, err = sqlitedb.Open(w.t.Context(), w.path, sqlitedb.Options{}); err != nil {
		w.t.Fatal(err)
	}
}

// begin makes a capture that goes on where the oracle stands, and runs it.
func (w *world) begin(change func(*capture.Config)) {
	w.t.Helper()
	w.make(change)
	err := w.c.Resume(w.t.Context())
	if errors.Is(err, capture.ErrDiscontinuous) {
		_, err = w.c.Rebase(w.t.Context())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.run()
}

func (w *world) make(change func(*capture.Config)) {
	w.t.Helper()
	cfg := capture.Config{
		DB: w.db, Name: "app", Epoch: 1, Start: w.oracle.pos, Place: w.oracle.place, Table: w.table, Sink: w.oracle,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.c, err = capture.New(cfg); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	c := w.c
	go func() { done <- c.Run(ctx) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		return errors.Join(<-done, c.Close())
	})
}

func (w *world) close() {
	if w.stop != nil {
		if err := w.stop(); err != nil {
			w.t.Error(err)
		}
	}
	if err := w.db.Close(); err != nil {
		w.t.Error(err)
	}
}

// behind tells how many commits are not captured; -1: it can't be told.
func (w *world) behind() int {
	w.t.Helper()
	n, proven, err := capture.Uncaptured(w.t.Context(), w.db, w.c.Place())
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := w.db.Header(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if !proven && h.MaxFrame > 0 {
		return -1
	}
	return n // an empty WAL proves nothing, but there is nothing in it either
}

// settle waits until everything that is committed has been shipped. No
// application may write meanwhile.
func (w *world) settle() {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for n := w.behind(); n != 0; n = w.behind() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%d commits are not captured (-1: not proven)", n)
		}
		w.oracle.mu.Lock()
		changed := w.oracle.changed
		w.oracle.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// finish ends the capture and compares: the copy with the bytes of the
// database, its rows with those that the applications have seen committed.
func (w *world) finish(ids []int64) {
	w.t.Helper()
	w.settle()
	if err := w.stop(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.db.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.compare(ids)
}

// compare is called while nothing of this process is open.
func (w *world) compare(ids []int64) {
	w.t.Helper()
	shell(w.t, w.path, "pragma wal_checkpoint(truncate)")
	want, err := os.ReadFile(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	sqlitefile.Normalise(want)
	size := w.oracle.size
	if len(want) != len(w.oracle.pages) {
		w.t.Errorf("the database has %d pages, the copy %d", len(want)/size, len(w.oracle.pages)/size)
	}
	bad := 0
	for off := 0; off+size <= min(len(want), len(w.oracle.pages)); off += size {
		if !bytes.Equal(want[off:off+size], w.oracle.pages[off:off+size]) {
			if bad++; bad < 5 {
				w.t.Errorf("page %d differs", off/size+1)
			}
		}
	}
	if got, want := w.oracle.pos.Checksum, w.oracle.checksum(); got != want {
		w.t.Errorf("checksum %s, want %s", got, want)
	}
	if got := w.table.Checksum(); got != w.oracle.pos.Checksum {
		w.t.Errorf("table has checksum %s, position %s", got, w.oracle.pos)
	}
	copied := filepath.Join(w.t.TempDir(), "copy.db")
	if err := os.WriteFile(copied, w.oracle.pages, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if got := shell(w.t, copied, "pragma integrity_check"); got != "ok" {
		w.t.Errorf("integrity_check: %s", got)
	}
	compareIDs(w.t, shell(w.t, copied, "select id from log order by id"), ids)
}

func compareIDs(t testing.TB, text string, ids []int64) {
	t.Helper()
	var got []int64
	for _, f := range strings.Fields(text) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("the copy has %d rows in log, %d were committed", len(got), len(ids))
	}
}
