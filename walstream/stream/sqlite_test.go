package stream

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// snapshots gives snapshots of a live database, as a node does, but for the
// table, which a node has already.
func snapshots(t testing.TB, path string) func(context.Context, string) (*Snapshot, error) {
	db, err := sqlitedb.Open(t.Context(), path, sqlitedb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	txid := walstream.TXID(0)
	return func(ctx context.Context, _ string) (*Snapshot, error) {
		snap, err := db.Snapshot(ctx, false)
		if err != nil {
			return nil, err
		}
		table := pagesum.New(snap.PageSize())
		table.Resize(snap.PageCount())
		for p, err := range snap.Pages(1) {
			if err != nil {
				return nil, err
			}
			table.Set(p.No, pagesum.Page(p.No, p.Data))
		}
		txid++
		return &Snapshot{
			Position: walstream.Position{Epoch: 1, TXID: txid, Checksum: table.Checksum()}, Time: time.Now(),
			PageSize: snap.PageSize(), PageCount: snap.PageCount(), Sums: table,
			ReadPage: snap.ReadPage, Close: snap.Close,
		}, nil
	}
}

// A new copy is seeded from a live SQLite database, over several snapshots,
// while an application writes it; then repaired once more.
func TestSeedFromLiveSQLite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	app, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	for _, q := range []string{
		"CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, note BLOB)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO account SELECT i, 100, randomblob(900) FROM n",
	} {
		if _, err := app.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	_, c := serve(t, ServerConfig{Snapshot: snapshots(t, path), SnapshotAge: 5 * time.Millisecond})
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- transfer(app, stop) }()

	sp := spool(t, filepath.Join(dir, "spool"))
	x, err := c.Repair(soon(t), Repair{Database: "db", Spool: sp})
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "copy.db")
	table := pagesum.New(x.PageSize)
	assemble(t, copied, x, table)
	checkBank(t, copied)

	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	again, err := c.Repair(soon(t), Repair{Database: "db", Have: table, PageSize: x.PageSize, Spool: spool(t, filepath.Join(dir, "again"))})
	if err != nil {
		t.Fatal(err)
	}
	assemble(t, copied, again, table)
	checkBank(t, copied)
	if want := balances(t, path); balances(t, copied) != want {
		t.Error("the repaired copy has other content than the database")
	}
}

// transfer moves money around until told to stop.
func transfer(app *sql.DB, stop chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		a, b := 1+i*37%3000, 1+i*91%3000
		_, err := app.Exec(fmt.Sprintf(`BEGIN IMMEDIATE; UPDATE account SET balance=balance-1 WHERE id=%d;
			UPDATE account SET balance=balance+1, note=randomblob(900) WHERE id=%d; COMMIT`, a, b))
		if err != nil {
			return fmt.Errorf("transfer %d: %w", i, err)
		}
	}
}

// assemble writes a repair's pages into a file that nobody has open.
func assemble(t *testing.T, path string, x *walstream.Txn, table *pagesum.Table) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for p, err := range x.Pages {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(p.Data, int64(p.No-1)*int64(x.PageSize)); err != nil {
			t.Fatal(err)
		}
		table.Set(p.No, pagesum.Page(p.No, p.Data))
	}
	table.Resize(x.PageCount)
	if err := f.Truncate(int64(x.PageCount) * int64(x.PageSize)); err != nil {
		t.Fatal(err)
	}
	if table.Checksum() != x.Post.Checksum {
		t.Fatalf("checksum %v, want %v", table.Checksum(), x.Post)
	}
}

func checkBank(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=ro&immutable=1")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var ok string
	var sum, n int
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		t.Fatalf("integrity_check: %s %v", ok, err)
	}
	if err := db.QueryRow("SELECT sum(balance), count(*) FROM account").Scan(&sum, &n); err != nil || sum != 300_000 || n != 3000 {
		t.Fatalf("%d in %d accounts: %v", sum, n, err)
	}
}

func balances(t *testing.T, path string) (all string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT group_concat(balance || hex(note)) FROM (SELECT * FROM account ORDER BY id)").Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all
}
