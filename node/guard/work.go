package guard

import (
	"context"
	"sync"
	"time"

	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// How a guard's work has ended.
type outcome int

const (
	fencedAll    outcome = iota // every database is fenced, durable
	fencedByNode                // the node has done it, of some or all, and says so itself
	unable                      // a file is none that can be fenced, nor written by SQLite
	superseded                  // the data dir has another life, which fences
)

const (
	// superviseEvery is how often it is looked what keeps a fence from being put up.
	superviseEvery = 5 * time.Millisecond
	// retryEvery is the pause after a fence could not be written.
	retryEvery = 200 * time.Millisecond
)

// work is the fencing of all databases that were open at one moment, at the
// same time: one that is busy is queued for while the others go on.
type work struct {
	g     *guard
	v     view
	began time.Duration
	jobs  []*job
}

// job is one database.
type job struct {
	Database
	bolt *apply.Bolt
	stop context.CancelFunc
	done chan struct{} // closed when it has ended
	end  outcome       // valid once done is closed
}

func newWork(g *guard, v view) *work {
	return &work{g: g, v: v, began: bootTime()}
}

// run returns when all are fenced, or somebody else does it.
func (w *work) run() outcome {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, db := range w.v.table.Databases {
		ctx, stop := context.WithCancel(context.Background())
		j := &job{Database: db, bolt: apply.NewBolt(db.Path), stop: stop, done: make(chan struct{})}
		w.jobs = append(w.jobs, j)
		wg.Go(func() {
			defer close(j.done)
			j.end = w.fence(ctx, j)
		})
	}
	defer func() {
		for _, j := range w.jobs {
			j.stop()
		}
	}()
	tick := time.NewTicker(superviseEvery)
	defer tick.Stop()
	for _, j := range w.jobs {
		for waiting := true; waiting; {
			select {
			case <-j.done:
				waiting = false
			case <-tick.C:
				if w.supervise() {
					return superseded
				}
			}
		}
	}
	end := fencedAll
	for _, j := range w.jobs {
		end = max(end, j.end)
	}
	return end
}

// fence fences one database, however long that takes, until ctx ends.
func (w *work) fence(ctx context.Context, j *job) outcome {
	warned := ""
	for ctx.Err() == nil {
		err := j.bolt.Shoot(ctx)
		switch {
		case err == nil:
			return fencedAll
		case ctx.Err() != nil:
			return fencedByNode
		}
		switch sqlitedb.Refused(err) {
		case sqlitedb.NotFound: // no file, no writer
			return fencedAll
		case sqlitedb.NotRegular, sqlitedb.Empty, sqlitedb.NotDatabase, sqlitedb.Encrypted, sqlitedb.TooNew, sqlitedb.NotWAL:
			w.g.log.Error("guard can't close a file to writers that is no such database any more", "database", j.Name, "error", err)
			return unable
		}
		if text := err.Error(); text != warned {
			warned = text
			w.g.log.Error("guard can't close a database to writers yet", "database", j.Name, "error", err)
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
		}
	}
	return fencedByNode
}

// supervise drops the jobs that the node has done by itself, and kills a node
// that keeps a database from being fenced. It tells whether another life of the
// node has begun.
func (w *work) supervise() (superseded bool) {
	g, now := w.g, bootTime()
	g.page.setBeat(now)
	if g.node.dead() {
		return g.lifeNow() != g.life
	}
	current, err := g.page.read()
	if err != nil {
		return false // it was said already
	}
	for _, j := range w.jobs {
		select {
		case <-j.done:
			continue
		default:
		}
		if !current.table.has(j.Name) {
			j.stop()
			continue
		}
		if now < w.began+superviseEvery || !w.hangs(now) || !g.node.holdsWriters(j.Path) {
			continue
		}
		g.log.Error("node hangs while it keeps a database from being closed to writers: it is killed",
			"database", j.Name, "pid", g.node.pid, "lease_ended", (now - w.v.deadline).Round(time.Millisecond))
		if err := g.node.kill(); err != nil {
			g.log.Error("kill node", "error", err)
		}
		return false
	}
	return false
}

// close closes the databases.
func (w *work) close() {
	for _, j := range w.jobs {
		if err := j.bolt.Close(); err != nil {
			w.g.log.Warn("close database", "database", j.Name, "error", err)
		}
	}
}

// hangs tells whether the node is not going to fence by itself.
func (w *work) hangs(now time.Duration) bool {
	return w.g.node.stopped() || now >= w.v.deadline+w.v.patience()
}
