package node

import (
	"context"
	"hash/fnv"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/walstream"
)

// methodTip tells a follower where the primary stands, and is answered with
// where the follower does. It finds the lost last message of a stream that then
// falls silent, and makes lag known while nothing is written.
const methodTip = "node.tip"

// tipInterval is how often the primary tells where it stands.
const tipInterval = 200 * time.Millisecond

// tipRequest says where all databases of the primary stand: in short by a
// digest, at length when the follower has asked for it.
type tipRequest struct {
	Epoch     uint64            `json:"epoch"`
	Digest    uint64            `json:"digest"`
	Positions map[string]string `json:"positions,omitempty"`
	// Synced says up to which TXID a majority has each database on disk, where
	// that is news to the follower.
	Synced map[string]walstream.TXID `json:"synced,omitempty"`
}

// tipAnswer says whether the follower stands where the primary does; if not,
// where it stands.
type tipAnswer struct {
	Equal     bool              `json:"equal"`
	Positions map[string]string `json:"positions,omitempty"`
}

// digest condenses where all databases stand into one number.
func digest(positions map[string]walstream.Position) uint64 {
	var sum uint64
	for name, pos := range positions {
		h := fnv.New64a()
		h.Write([]byte(name + " " + pos.String()))
		sum += h.Sum64()
	}
	return sum
}

// tips is the primary's knowledge of where its followers stand. It is safe for
// concurrent use.
type tips struct {
	mu    sync.Mutex
	nodes map[string]*followerTip // by node ID; guarded by mu
}

// followerTip is one follower as its last answer showed it.
type followerTip struct {
	at        time.Time
	caughtUp  bool // it had everything that the tip before the last said
	behind    bool // its last answer was not "equal": it gets positions next time
	sent      map[string]walstream.Position
	positions map[string]walstream.Position
	synced    map[string]walstream.TXID // that it was told
}

func newTips() *tips { return &tips{nodes: map[string]*followerTip{}} }

// caughtUp tells whether a node has answered lately and keeps up.
func (t *tips) caughtUp(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.nodes[id]
	return f != nil && f.caughtUp && time.Since(f.at) < 5*tipInterval
}

// news returns what of synced a follower was not told yet.
func (t *tips) news(id string, synced map[string]walstream.TXID) map[string]walstream.TXID {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.nodes[id]
	if f == nil {
		return synced
	}
	fresh := map[string]walstream.TXID{}
	for name, txid := range synced {
		if f.synced[name] != txid {
			fresh[name] = txid
		}
	}
	return fresh
}

// wantsPositions tells whether a follower's last answer was that it stands
// elsewhere.
func (t *tips) wantsPositions(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.nodes[id]
	return f == nil || f.behind
}

// answered takes a follower's answer to a tip that said the given positions,
// and returns where the follower has each database on disk.
func (t *tips) answered(id string, sent map[string]walstream.Position, synced map[string]walstream.TXID, a tipAnswer, now time.Time) map[string]walstream.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.nodes[id]
	if f == nil {
		f = &followerTip{}
		t.nodes[id] = f
	}
	f.positions = map[string]walstream.Position{}
	for name, text := range a.Positions {
		if pos, err := walstream.ParsePosition(text); err == nil {
			f.positions[name] = pos
		}
	}
	if a.Equal {
		f.positions = sent
	}
	f.caughtUp = f.sent != nil || len(sent) == 0
	for name, pos := range f.sent {
		f.caughtUp = f.caughtUp && f.positions[name].Compare(pos) >= 0
	}
	f.at, f.behind, f.sent, f.synced = now, !a.Equal, sent, synced
	return f.positions
}

// reset forgets what earlier reigns knew.
func (t *tips) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.nodes)
}

// tellTips tells all other nodes where this primary stands, until ctx ends.
func (n *Node) tellTips(ctx context.Context, r *reign) {
	n.tips.reset()
	tick := time.NewTicker(tipInterval)
	defer tick.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	var busy sync.Map // node IDs with a call under way
	for {
		if err := n.txlog.Sync(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("the log can't be made durable", "error", err)
		}
		positions := n.standing()
		r.barrier.has(n.cluster.Self(), positions)
		n.showSynced(r)
		sum := digest(positions)
		for id := range n.cluster.State().Nodes {
			if _, underWay := busy.LoadOrStore(id, true); id == n.cluster.Self() || underWay {
				continue
			}
			calls.Go(func() {
				defer busy.Delete(id)
				n.tellTip(ctx, r, id, positions, sum)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *Node) tellTip(ctx context.Context, r *reign, id string, positions map[string]walstream.Position, sum uint64) {
	ctx, cancel := context.WithTimeout(ctx, 10*tipInterval)
	defer cancel()
	synced := r.barrier.majority()
	request := tipRequest{Epoch: uint64(r.epoch), Digest: sum, Synced: n.tips.news(id, synced)}
	if n.tips.wantsPositions(id) {
		request.Positions = positionTexts(positions)
	}
	var answer tipAnswer
	if err := n.cluster.Call(ctx, id, methodTip, request, &answer); err != nil {
		n.log.Debug("tell where the primary stands", "node", id, "error", err)
		return
	}
	r.barrier.has(id, n.tips.answered(id, positions, synced, answer, time.Now()))
	n.showSynced(r)
}

// showSynced tells how far a majority of the voters has each database on disk.
func (n *Node) showSynced(r *reign) {
	for name, txid := range r.barrier.majority() {
		if d := n.known(name); d != nil {
			d.progress.setSynced(txid)
		}
	}
}

// standing returns for every database where its log is durable.
func (n *Node) standing() map[string]walstream.Position {
	all := map[string]walstream.Position{}
	for _, name := range n.cluster.State().Databases {
		if pos := n.txlog.Durable(name); !pos.IsZero() {
			all[name] = pos
		}
	}
	return all
}

func positionTexts(positions map[string]walstream.Position) map[string]string {
	texts := make(map[string]string, len(positions))
	for name, pos := range positions {
		texts[name] = pos.String()
	}
	return texts
}

// heardTip is the follower's side of a tip.
func (n *Node) heardTip(ctx context.Context, from string, body []byte) (any, error) {
	var request tipRequest
	if err := rpc.Decode(body, &request); err != nil {
		return nil, err
	}
	now := time.Now()
	live := n.live.Load()
	if live == nil || live.term.primary != from || uint64(live.term.epoch) != request.Epoch {
		return tipAnswer{}, nil
	}
	// What the answer says is on disk, so that the primary can count on it.
	if err := n.txlog.Sync(ctx); err != nil {
		return nil, err
	}
	release, err := n.gate.enter(live.term.epoch) // it counts as an acknowledgement
	if err != nil {
		return nil, err
	}
	defer release()
	live.each(func(f *following) {
		if txid, ok := request.Synced[f.d.name]; ok {
			f.d.progress.setSynced(txid)
		}
	})
	own := n.standing()
	if digest(own) == request.Digest {
		live.each(func(f *following) { f.heard(own[f.d.name], now) })
		return tipAnswer{Equal: true}, nil
	}
	live.each(func(f *following) {
		if pos, err := walstream.ParsePosition(request.Positions[f.d.name]); err == nil {
			f.heard(pos, now)
		}
	})
	return tipAnswer{Positions: positionTexts(own)}, nil
}

// heard takes the primary's position from a tip. One that was told a whole tip
// ago and is not reached with nothing on its way was lost.
func (f *following) heard(pos walstream.Position, now time.Time) {
	f.d.progress.heard(pos, now)
	last := f.d.txlog.Last(f.d.name)
	told := f.told.Swap(&pos)
	if told != nil && last.Compare(*told) < 0 {
		f.nudge()
	}
}
