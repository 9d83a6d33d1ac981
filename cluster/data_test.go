package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
)

// referee watches that no two nodes may write at one instant, and keeps what was
// acknowledged by a majority. Shared by all nodes of a test.
type referee struct {
	t  *testing.T
	wg sync.WaitGroup // zombies

	mu     sync.Mutex
	open   string                      // the node that may write; guarded by mu
	epochs map[uint64]string           // who reigned; guarded by mu
	acked  map[string][]state.Position // by database; guarded by mu
}

func newReferee(t *testing.T) *referee {
	return &referee{t: t, epochs: map[uint64]string{}, acked: map[string][]state.Position{}}
}

func (r *referee) enter(node string, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != "" {
		r.t.Errorf("%s opens for writing in epoch %d while %s is open", node, epoch, r.open)
	}
	if other, ok := r.epochs[epoch]; ok {
		r.t.Errorf("%s reigns in epoch %d as %s did", node, epoch, other)
	}
	r.open, r.epochs[epoch] = node, node
}

func (r *referee) leave(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == node {
		r.open = ""
	}
}

func (r *referee) ack(db string, p state.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked[db] = append(r.acked[db], p)
}

func (r *referee) ackedCount(db string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.acked[db])
}

// disk is what survives a node's crash: its logs.
type disk struct {
	mu     sync.Mutex
	logs   map[string][]state.Position // by database, in order; guarded by mu
	newest uint64                      // epoch of the newest reign followed; guarded by mu
}

func newDisk() *disk { return &disk{logs: map[string][]state.Position{}} }

func (d *disk) last(db string) state.Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return lastOf(d.logs[db])
}

func lastOf(log []state.Position) state.Position {
	if len(log) == 0 {
		return state.Position{}
	}
	return log[len(log)-1]
}

// memData is the in-memory twin of a node's databases: logs without pages, a
// writer that commits as fast as a majority acknowledges.
type memData struct {
	c       *cluster.Cluster
	disk    *disk
	referee *referee

	mu        sync.Mutex
	promised  uint64          // nothing lower is accepted; guarded by mu
	caughtUp  map[string]bool // what members have said; guarded by mu
	noPromote bool            // guarded by mu
	zombie    bool            // the application goes on after lsnode: Reign can't fence; guarded by mu
	advance   error           // what Advance returns; guarded by mu
	blocked   bool            // writers are kept out: Handover; guarded by mu
	quit      chan struct{}   // closed to let Reign end by itself
	writing   sync.RWMutex    // held shared during a write
}

func newMemData(c *cluster.Cluster, d *disk, r *referee) *memData {
	m := &memData{c: c, disk: d, referee: r, promised: c.Promised(), caughtUp: map[string]bool{}, quit: make(chan struct{})}
	c.RPC().Handle("test.append", m.handleAppend)
	c.RPC().Handle("test.log", m.handleLog)
	return m
}

type appendRequest struct {
	DB        string
	Pre, Post state.Position
}

var errGap = errors.New("gap")

// accept appends to the log what follows on it, unless it is below what was
// promised.
func (m *memData) accept(r appendRequest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Post.Epoch < m.promised {
		return fmt.Errorf("epoch %d was promised", m.promised)
	}
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	log := m.disk.logs[r.DB]
	if slices.Contains(log, r.Post) {
		return nil
	}
	if lastOf(log) != r.Pre {
		return errGap
	}
	m.disk.logs[r.DB] = append(log, r.Post)
	return nil
}

func (m *memData) handleAppend(ctx context.Context, from string, body []byte) (any, error) {
	var r appendRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	err := m.accept(r)
	if errors.Is(err, errGap) {
		if err = m.fetch(ctx, from, r.DB, r.Post.Epoch, m.c.State().Line()); err == nil {
			err = m.accept(r)
		}
	}
	return struct{}{}, err
}

func (m *memData) handleLog(_ context.Context, _ string, body []byte) (any, error) {
	var db string
	if err := json.Unmarshal(body, &db); err != nil {
		return nil, err
	}
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return slices.Clone(m.disk.logs[db]), nil
}

// fetch takes over another node's log, if that is on the line and of this epoch.
func (m *memData) fetch(ctx context.Context, from, db string, epoch uint64, line state.Line) error {
	var log []state.Position
	if err := m.c.Call(ctx, from, "test.log", db, &log); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch < m.promised {
		return fmt.Errorf("epoch %d was promised", m.promised)
	}
	cut := line.Cut(db, lastOf(log), lookup(log))
	log = log[:slices.Index(log, cut)+1]
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.logs[db] = log
	return nil
}

func lookup(log []state.Position) state.Lookup {
	return func(epoch, txid uint64) (state.Position, bool) {
		for _, p := range slices.Backward(log) {
			if p.Compare(state.Position{Epoch: epoch, TXID: txid}) <= 0 {
				return p, true
			}
		}
		return state.Position{}, false
	}
}

func (m *memData) Positions(_ context.Context, epoch uint64, line state.Line) (map[string]state.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.promised = max(m.promised, epoch)
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	out := map[string]state.Position{}
	for db, log := range m.disk.logs {
		if p := line.Cut(db, lastOf(log), lookup(log)); !p.IsZero() {
			out[db] = p
		}
	}
	return out, nil
}

func (m *memData) Advance(ctx context.Context, epoch uint64, line state.Line, targets map[string]promote.Target) (map[string]state.Position, error) {
	m.mu.Lock()
	err := m.advance
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	out := map[string]state.Position{}
	for db, t := range targets {
		m.disk.mu.Lock()
		log := m.disk.logs[db]
		cut := line.Cut(db, lastOf(log), lookup(log))
		m.disk.logs[db] = log[:slices.Index(log, cut)+1]
		m.disk.mu.Unlock()
		if cut != t.Position {
			if err := m.fetch(ctx, t.From[0], db, epoch, line); err != nil {
				return nil, err
			}
		}
		out[db] = m.disk.last(db)
	}
	return out, nil
}

// Reign begins every database with an epoch record and commits until ctx ends.
func (m *memData) Reign(ctx context.Context, r cluster.Reign) error {
	m.mu.Lock()
	m.blocked = false
	m.mu.Unlock()
	m.referee.enter(m.c.Name(), r.Epoch)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, db := range m.c.State().Databases {
		if _, ok := r.Start[db]; !ok {
			if err := m.c.AddDatabase(ctx, db, r.Epoch); err != nil {
				continue
			}
		}
		wg.Go(func() { m.write(ctx, db, r) })
	}
	select {
	case <-ctx.Done():
	case <-m.quit:
	}
	return m.fence(r)
}

// fence ends a reign. A zombie's application may go on until the lease is over.
func (m *memData) fence(r cluster.Reign) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.zombie || m.c.SoleVoter() || m.blocked {
		m.referee.leave(m.c.Name())
		return nil
	}
	end := r.Lease.Until()
	m.referee.wg.Go(func() {
		time.Sleep(time.Until(end))
		m.referee.leave(m.c.Name())
	})
	return errors.New("the databases are not fenced")
}

func (m *memData) write(ctx context.Context, db string, r cluster.Reign) {
	pre := m.disk.last(db)
	post := state.Position{Epoch: r.Epoch, TXID: pre.TXID, Checksum: pre.Checksum}
	for ctx.Err() == nil {
		if m.commit(ctx, db, r, pre, post) {
			pre = post
			post = state.Position{Epoch: r.Epoch, TXID: pre.TXID + 1, Checksum: pre.Checksum*31 + r.Epoch}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// commit logs one transaction here and ships it; a majority makes it
// acknowledged.
func (m *memData) commit(ctx context.Context, db string, r cluster.Reign, pre, post state.Position) bool {
	m.writing.RLock()
	defer m.writing.RUnlock()
	m.mu.Lock()
	blocked := m.blocked
	m.mu.Unlock()
	if blocked || !r.Lease.Valid() || ctx.Err() != nil {
		return false
	}
	request := appendRequest{DB: db, Pre: pre, Post: post}
	if err := m.accept(request); err != nil {
		return false
	}
	voters := m.c.Voters()
	got := m.ship(ctx, request)
	got[m.c.Self()] = true
	n := 0
	for _, v := range voters {
		if got[v] {
			n++
		}
	}
	if n > len(voters)/2 {
		m.referee.ack(db, post)
	}
	return true
}

func (m *memData) ship(ctx context.Context, r appendRequest) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	var mu sync.Mutex
	got := map[string]bool{}
	var wg sync.WaitGroup
	for id := range m.c.State().Nodes {
		if id == m.c.Self() {
			continue
		}
		wg.Go(func() {
			err := m.c.Call(ctx, id, "test.append", r, nil)
			mu.Lock()
			got[id] = err == nil
			mu.Unlock()
		})
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, ok := range got {
		m.caughtUp[id] = ok
	}
	return got
}

func (m *memData) Handover(ctx context.Context, target string) error {
	m.mu.Lock()
	m.blocked = true
	m.mu.Unlock()
	m.writing.Lock() // those under way have ended
	defer m.writing.Unlock()
	err := m.push(ctx, target)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blocked = err == nil; m.blocked {
		m.referee.leave(m.c.Name())
	}
	return err
}

// push lets the target have all that this node has.
func (m *memData) push(ctx context.Context, target string) error {
	for _, db := range m.c.State().Databases {
		last := m.disk.last(db)
		if last.IsZero() {
			continue
		}
		if err := m.c.Call(ctx, target, "test.append", appendRequest{DB: db, Pre: last, Post: last}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Follow checks that no history is older than one that this disk has seen, in
// whatever life.
func (m *memData) Follow(ctx context.Context, term cluster.Term) error {
	m.disk.mu.Lock()
	newest := term.Line.Newest()
	if newest != 0 && newest < m.disk.newest || term.Primary != "" && term.Epoch != newest {
		m.referee.t.Errorf("%s follows in epoch %d by a history up to %d, and has seen %d", m.c.Name(), term.Epoch, newest, m.disk.newest)
	}
	m.disk.newest = max(m.disk.newest, newest)
	m.disk.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (m *memData) CaughtUp(node string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return node == m.c.Self() || m.caughtUp[node]
}

func (m *memData) NoPromote() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.noPromote
}

var _ cluster.Data = (*memData)(nil)
