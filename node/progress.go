package node

import (
	"sync"
	"time"

	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
)

// progress is what is told about one database: where it stands, what it does,
// how far behind it is. Roles write it, status and waiters read it. It is safe
// for concurrent use.
type progress struct {
	mu       sync.Mutex
	state    api.State
	err      string
	visible  walstream.Position // what readers here see
	synced   walstream.TXID     // durable on a majority, as far as known here
	tip      walstream.Position // the newest position of the primary that was heard of
	mark     walstream.Position // the tip that, once visible, proves currency as of markAt
	markAt   time.Time          // when mark was heard of
	current  time.Time          // when this node last knew itself to be at the primary's position
	wal      int64              // bytes
	kept     int                // commits in quarantine
	damaged  int                // pages found damaged and not repaired yet
	advanced chan struct{}      // closed and replaced when visible changes
}

func newProgress() *progress {
	return &progress{state: api.StateFenced, advanced: make(chan struct{})}
}

// become sets what the database does, and why it does not serve, if so.
func (p *progress) become(state api.State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.err = state, ""
	if err != nil {
		p.err = err.Error()
	}
}

// show says that readers now see pos.
func (p *progress) show(pos walstream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.visible == pos {
		return
	}
	p.visible = pos
	if !p.mark.IsZero() && p.mark.Compare(pos) <= 0 && p.markAt.After(p.current) {
		p.current = p.markAt
	}
	close(p.advanced)
	p.advanced = make(chan struct{})
}

// heard says that the primary stands, or stood at that time, at pos.
func (p *progress) heard(pos walstream.Position, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pos.Compare(p.tip) > 0 {
		p.tip = pos
	}
	switch {
	case pos.Compare(p.visible) <= 0:
		if at.After(p.current) {
			p.current = at
		}
	// A mark that was not reached yet stays until it is: else a database that is
	// always a little behind would never know how far.
	case p.mark.Compare(p.visible) <= 0:
		p.mark, p.markAt = pos, at
	}
}

// behindLocked returns how many commits of the primary are known and not visible.
func (p *progress) behindLocked() uint64 {
	if p.tip.TXID <= p.visible.TXID {
		return 0
	}
	return uint64(p.tip.TXID - p.visible.TXID)
}

func (p *progress) setSynced(t walstream.TXID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synced = t
}

func (p *progress) setWAL(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wal = bytes
}

func (p *progress) setKept(commits int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = commits
}

func (p *progress) setDamaged(pages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.damaged = pages
}

// position returns what readers see and a channel that is closed when that
// changes.
func (p *progress) position() (walstream.Position, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.visible, p.advanced
}

// status describes the database now.
func (p *progress) status(name, path string, now time.Time) api.Database {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := api.Database{
		Name: name, Path: path, State: p.state, Error: p.err,
		Epoch: uint64(p.visible.Epoch), WALBytes: p.wal, Quarantined: p.kept, DamagedPages: p.damaged,
	}
	if !p.visible.IsZero() {
		d.TXID, d.Checksum, d.Bookmark = p.visible.TXID.String(), p.visible.Checksum.String(), p.visible.Bookmark()
	}
	if p.synced != 0 {
		d.SyncedTXID = p.synced.String()
	}
	if p.state != api.StatePrimary {
		d.LagTXIDs = p.behindLocked()
		if !p.current.IsZero() {
			d.LagMS = float64(now.Sub(p.current).Microseconds()) / 1000
		}
	}
	return d
}

// lag returns how long ago the database was known to be at the primary's
// position, and whether it ever was.
func (p *progress) lag(now time.Time) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.current), !p.current.IsZero()
}
