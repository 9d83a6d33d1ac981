package sqlitefile_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Our lock and SQLite's exclude each other, in one process too.
func TestLockExcludesSQLite(t *testing.T) {
	f := openFiles(t, "4096")
	f.exec(t, "pragma busy_timeout=0")
	ok, err := sqlitefile.TryLock(f.shm, sqlitefile.LockWrite, 1, true)
	if err != nil || !ok {
		t.Fatalf("take the write lock: %v %v", ok, err)
	}
	if _, err := f.conn.ExecContext(context.Background(), "insert into t values(1,1)"); err == nil {
		t.Fatal("SQLite wrote while the write lock was ours")
	}
	if err := sqlitefile.Unlock(f.shm, sqlitefile.LockWrite, 1); err != nil {
		t.Fatal(err)
	}
	f.exec(t, "begin immediate")
	if ok, err := sqlitefile.TryLock(f.shm, sqlitefile.LockWrite, 1, true); err != nil || ok {
		t.Fatalf("take the write lock while SQLite has it: %v %v", ok, err)
	}
	if pid, held, err := sqlitefile.Holder(f.shm, sqlitefile.LockWrite); pid != os.Getpid() || !held || err != nil {
		t.Fatalf("holder %d %v %v, want %d", pid, held, err, os.Getpid())
	}
	f.exec(t, "rollback")
}

func TestLockWaits(t *testing.T) {
	f := openFiles(t, "4096")
	f.exec(t, "begin immediate")
	got := make(chan error, 1)
	go func() { got <- sqlitefile.Lock(t.Context(), f.shm, sqlitefile.LockWrite, 1, true) }()
	select {
	case err := <-got:
		t.Fatalf("lock granted while SQLite has it: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	f.exec(t, "rollback")
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if err := sqlitefile.Unlock(f.shm, sqlitefile.LockWrite, 1); err != nil {
		t.Fatal(err)
	}
}

// Giving up leaves neither a lock nor a thread in the kernel's queue behind.
func TestLockGivesUp(t *testing.T) {
	f := openFiles(t, "4096")
	for range 20 {
		f.exec(t, "begin immediate")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		err := sqlitefile.Lock(ctx, f.shm, sqlitefile.LockWrite, 1, true)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		f.exec(t, "rollback")
		if _, held, err := sqlitefile.Holder(f.shm, sqlitefile.LockWrite); held || err != nil {
			t.Fatalf("lock held after giving up: %v %v", held, err)
		}
		f.shell(t, "insert into t(v) values('other process')")
	}
}
