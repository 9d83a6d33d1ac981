package apply

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// shell runs statements in another process.
func shell(path, statements string) string {
	out, _ := exec.Command("sqlite3", "-cmd", ".timeout 50", path, statements).CombinedOutput()
	return string(out)
}

func TestBolt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if got := shell(path, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)"); !strings.HasPrefix(got, "wal") {
		t.Fatal(got)
	}
	b := NewBolt(path)
	for range 2 { // again, and again after Close
		for range 2 {
			if err := b.Shoot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if got := shell(path, "INSERT INTO t VALUES(2)"); !strings.Contains(got, "readonly database") {
			t.Errorf("a write gets %q", got)
		}
	}
	if got := shell(path, "PRAGMA integrity_check; SELECT count(*) FROM t"); got != "ok\n1\n" {
		t.Errorf("it reads %q", got)
	}
	if err := Release(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if got := shell(path, "INSERT INTO t VALUES(3); SELECT count(*) FROM t"); got != "2\n" {
		t.Errorf("released, a write gets %q", got)
	}
}

// It waits for whoever writes, and gives up when it is told to.
func TestBoltWaitsForWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	shell(path, "PRAGMA journal_mode=WAL; CREATE TABLE t(a)")
	holder, err := sqlitedb.Open(t.Context(), path, sqlitedb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := holder.LockWrite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := NewBolt(path)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := b.Shoot(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("against a writer: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Shoot(t.Context()) }()
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := errors.Join(b.Close(), holder.Close()); err != nil {
		t.Error(err)
	}
	if got := shell(path, "INSERT INTO t VALUES(2)"); !strings.Contains(got, "readonly database") {
		t.Errorf("a write gets %q", got)
	}
}

func TestBoltWithoutFile(t *testing.T) {
	b := NewBolt(filepath.Join(t.TempDir(), "absent.db"))
	if err := b.Shoot(t.Context()); sqlitedb.Refused(err) != sqlitedb.NotFound {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// Without room for the mark the lock is kept: nobody can write all the same, and
// the mark follows when there is room.
func TestBoltOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("no right to mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path, ballast := filepath.Join(dir, "a.db"), filepath.Join(dir, "ballast")
	shell(path, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); PRAGMA wal_checkpoint(TRUNCATE)")
	reader, err := sqlitedb.Open(t.Context(), path, sqlitedb.Options{}) // so that -wal and -shm are there
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	b := NewBolt(path)
	if err := b.Shoot(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	if got := shell(path, "BEGIN IMMEDIATE"); !strings.Contains(got, "locked") {
		t.Errorf("a writer gets %q", got)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Shoot(t.Context()), b.Close()); err != nil {
		t.Fatal(err)
	}
	if got := shell(path, "INSERT INTO t VALUES(2)"); !strings.Contains(got, "readonly database") {
		t.Errorf("a write gets %q", got)
	}
}
