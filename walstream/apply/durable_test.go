package apply_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// logGuard stands for the log: it knows which frames it had on disk when it was
// last synced, and looks whether more than those were copied meanwhile.
type logGuard struct {
	mu     sync.Mutex
	c      *copyOf
	salt   sqlitefile.Salt
	synced uint32 // frames of that generation
	calls  int
	wrong  error
}

func (g *logGuard) sync(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.c == nil {
		return nil
	}
	g.check()
	h, ok := g.c.db.Index().Header()
	if !ok {
		return nil
	}
	g.salt, g.synced, g.calls = h.Salt, h.MaxFrame, g.calls+1
	// A slow disk: more is applied meanwhile, if it may.
	for range 20 {
		if now, ok := g.c.db.Index().Header(); ok && now.MaxFrame > h.MaxFrame+10 {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

func (g *logGuard) check() {
	h, ok := g.c.db.Index().Header()
	copied := g.c.db.Index().Backfill()
	if ok && h.Salt == g.salt && copied > g.synced && g.wrong == nil {
		g.wrong = errors.New("frames were copied that the log did not have on disk")
	}
}

// No frame gets into the database file before the log has it on disk.
func TestCheckpointWaitsForLog(t *testing.T) {
	rng := seeded(t)
	s, first := newSource(t, 1024, ledgerTables...)
	g := &logGuard{}
	c := open(t, create(t, t.TempDir(), first), func(c *apply.Config) { c.CheckpointFrames, c.SyncLog = 20, g.sync })
	h, _ := c.db.Index().Header()
	g.mu.Lock()
	g.c, g.salt = c, h.Salt
	g.mu.Unlock()
	stop := c.run(t)
	eventually(t, "10 checkpoints under load", func() bool {
		c.mustApply(t, s.step(t, transfer(rng)))
		g.mu.Lock()
		defer g.mu.Unlock()
		g.check()
		return g.wrong != nil || c.Stats().Checkpoints >= 10
	})
	stop()
	if g.wrong != nil {
		t.Fatalf("%v, after %d syncs; %+v", g.wrong, g.calls, c.Stats())
	}
}

// A log that can't be synced keeps everything as it is: nothing is copied and no
// position is recorded, but applying goes on.
func TestLogFails(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k integer primary key, v)")
	failing := errors.New("log disk is gone")
	c := open(t, create(t, t.TempDir(), first), func(c *apply.Config) {
		c.CheckpointFrames = 10
		c.SyncLog = func(context.Context) error { return failing }
	})
	stop := c.run(t)
	for range 50 {
		c.mustApply(t, s.step(t, "insert into t values(null, hex(randomblob(300)))"))
	}
	if err := c.Sync(t.Context()); !errors.Is(err, failing) {
		t.Fatalf("got %v", err)
	}
	stop()
	if st := c.Stats(); st.Copied != 0 || c.Durable() != first.Post {
		t.Fatalf("%d frames copied, durable %s", st.Copied, c.Durable())
	}
	if got := shell(t, c.path, "select count(*) from t"); got != "50" {
		t.Fatal(got)
	}
	// As after SIGKILL: a clean end can't be recorded.
	if err := c.Close(t.Context()); !errors.Is(err, failing) {
		t.Fatalf("got %v", err)
	}
	c.db.Close()
	c.table.Close()
	path := c.path
	c.db = nil
	c = open(t, path, nil)
	if c.Start() != apply.StartCrashed || c.Applied() != first.Post {
		t.Fatalf("start %s at %s", c.Start(), c.Applied())
	}
}

// The position is recorded soon after things have become quiet.
func TestRecordsWhenIdle(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k)")
	c := open(t, create(t, t.TempDir(), first), nil)
	c.run(t)
	c.mustApply(t, s.step(t, "insert into t values(1)"))
	eventually(t, "the position is recorded", func() bool { return c.Durable() == s.pos })
	if got := c.table.Position(); got != s.pos {
		t.Fatalf("the table is flushed at %s, not %s", got, s.pos)
	}
	eventually(t, "the WAL is empty", func() bool { return c.Stats().Frames == 0 })
}
