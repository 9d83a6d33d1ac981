package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/walstream"
)

// barrier is the sync barrier of one reign: it finds out from which position on
// a majority of the voters has a database on disk. Waiters of all databases
// share what is asked of each voter: one call a voter is under way, and what was
// wanted meanwhile goes into the next. It is safe for concurrent use.
type barrier struct {
	epoch  walstream.Epoch
	self   string
	voters func() []string // of the newest configuration
	// ask returns once a voter has all positions durable and has promised no
	// higher epoch by then.
	ask func(ctx context.Context, voter string, positions map[string]walstream.Position) error

	mu      sync.Mutex
	wanted  map[string]walstream.Position            // by database; guarded by mu
	durable map[string]map[string]walstream.Position // by node and database; guarded by mu
	acked   map[string]walstream.Position            // what some sync has answered; guarded by mu
	asking  map[string]bool                          // voters with a call under way; guarded by mu
	moved   chan struct{}                            // guarded by mu; closed and replaced when durable grows
	waiting int                                      // guarded by mu
	closed  bool                                     // guarded by mu; nobody is asked any more
	calls   sync.WaitGroup
}

func newBarrier(epoch walstream.Epoch, self string, voters func() []string,
	ask func(context.Context, string, map[string]walstream.Position) error,
) *barrier {
	return &barrier{
		epoch: epoch, self: self, voters: voters, ask: ask,
		wanted: map[string]walstream.Position{}, durable: map[string]map[string]walstream.Position{},
		acked: map[string]walstream.Position{}, asking: map[string]bool{}, moved: make(chan struct{}),
	}
}

// has notes that a node has positions on disk. Those of other epochs say nothing:
// what an earlier primary has shipped may still be lost.
func (b *barrier) has(node string, positions map[string]walstream.Position) {
	b.mu.Lock()
	defer b.mu.Unlock()
	have := b.durable[node]
	if have == nil {
		have = map[string]walstream.Position{}
		b.durable[node] = have
	}
	grown := false
	for db, pos := range positions {
		if pos.Epoch == b.epoch && pos.Compare(have[db]) > 0 {
			have[db], grown = pos, true
		}
	}
	if grown {
		close(b.moved)
		b.moved = make(chan struct{})
	}
}

// holdersLocked returns the voters that have pos of a database on disk.
func (b *barrier) holdersLocked(db string, pos walstream.Position, voters []string) []string {
	var nodes []string
	for _, id := range voters {
		if have := b.durable[id][db]; have.Epoch == pos.Epoch && have.TXID >= pos.TXID {
			nodes = append(nodes, id)
		}
	}
	return nodes
}

// wait returns the voters that have pos on disk once these are a majority. reign
// bounds the calls, ctx the wait.
func (b *barrier) wait(ctx, reign context.Context, db string, pos walstream.Position) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if pos.Compare(b.wanted[db]) > 0 {
		b.wanted[db] = pos
	}
	b.waiting++
	defer func() { b.waiting-- }()
	for {
		voters := b.voters()
		nodes := b.holdersLocked(db, pos, voters)
		if len(nodes) > len(voters)/2 && slices.Contains(nodes, b.self) {
			if pos.Compare(b.acked[db]) > 0 {
				b.acked[db] = pos
			}
			return nodes, nil
		}
		b.askAllLocked(reign, voters)
		moved := b.moved
		b.mu.Unlock()
		var err error
		select {
		case <-moved:
		case <-ctx.Done():
			err = ctx.Err()
		case <-reign.Done():
			err = errDeposed
		}
		b.mu.Lock()
		if err != nil {
			return nodes, err
		}
	}
}

// close returns once no call is under way, after the reign's context has ended.
func (b *barrier) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.calls.Wait()
}

// askAllLocked asks every other voter for what is wanted, unless it is asked
// already.
func (b *barrier) askAllLocked(ctx context.Context, voters []string) {
	if b.closed {
		return
	}
	for _, id := range voters {
		if id == b.self || b.asking[id] || len(b.lackingLocked(id)) == 0 {
			continue
		}
		b.asking[id] = true
		b.calls.Go(func() { b.askOne(ctx, id) })
	}
}

// lackingLocked returns what is wanted of a node and not known to be there.
func (b *barrier) lackingLocked(id string) map[string]walstream.Position {
	lacking := map[string]walstream.Position{}
	for db, pos := range b.wanted {
		if pos.Compare(b.durable[id][db]) > 0 {
			lacking[db] = pos
		}
	}
	return lacking
}

// askOne asks a voter, again and again while somebody waits for what it lacks.
func (b *barrier) askOne(ctx context.Context, id string) {
	wait := retryFirst
	for {
		b.mu.Lock()
		lacking := b.lackingLocked(id)
		if len(lacking) == 0 || b.waiting == 0 || ctx.Err() != nil {
			b.asking[id] = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		call, cancel := context.WithTimeout(ctx, askPatience)
		err := b.ask(call, id, lacking)
		cancel()
		if err != nil {
			wait = pause(ctx, wait)
			continue
		}
		wait = retryFirst
		b.has(id, lacking)
	}
}

// askPatience bounds one call: a voter that is behind is asked anew for what is
// wanted by then.
const askPatience = 2 * time.Second

// holds tells whether a node has everything on disk that some sync has
// answered.
func (b *barrier) holds(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for db, pos := range b.acked {
		if have := b.durable[node][db]; have.Epoch != pos.Epoch || have.TXID < pos.TXID {
			return false
		}
	}
	return true
}

// majority returns for each database the highest TXID that a majority of the
// voters has on disk, as far as is known.
func (b *barrier) majority() map[string]walstream.TXID {
	voters := b.voters()
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]walstream.TXID{}
	for db := range b.durable[b.self] {
		var have []walstream.TXID
		for _, id := range voters {
			have = append(have, b.durable[id][db].TXID)
		}
		slices.Sort(have)
		if len(have) > 0 {
			out[db] = have[(len(have)-1)/2]
		}
	}
	return out
}

// methodDurable asks a voter to answer once its log has positions on disk.
const methodDurable = "node.durable"

// durableRequest comes from the primary of an epoch.
type durableRequest struct {
	Epoch     uint64            `json:"epoch"`
	Positions map[string]string `json:"positions"`
}

// askDurable is the primary's side of the barrier's call.
func (n *Node) askDurable(epoch walstream.Epoch) func(context.Context, string, map[string]walstream.Position) error {
	return func(ctx context.Context, voter string, positions map[string]walstream.Position) error {
		request := durableRequest{Epoch: uint64(epoch), Positions: positionTexts(positions)}
		return n.cluster.Call(ctx, voter, methodDurable, request, nil)
	}
}

// answerDurable is the voter's side. A node that has promised a higher epoch
// never acknowledges a lower one again: the promise is looked at after the
// fsync, and can't be given between that and the look at the log.
func (n *Node) answerDurable(ctx context.Context, _ string, body []byte) (any, error) {
	var request durableRequest
	if err := rpc.Decode(body, &request); err != nil {
		return nil, err
	}
	goals := map[string]walstream.Position{}
	for name, text := range request.Positions {
		pos, err := walstream.ParsePosition(text)
		if err != nil || uint64(pos.Epoch) != request.Epoch {
			return nil, rpc.Errorf(rpc.CodeBadRequest, "%s of %s is no position of epoch %d", text, name, request.Epoch)
		}
		goals[name] = pos
	}
	for _, name := range slices.Sorted(maps.Keys(goals)) {
		if err := n.await(ctx, name, goals[name]); err != nil {
			return nil, err
		}
	}
	if err := n.txlog.Sync(ctx); err != nil {
		return nil, err
	}
	release, err := n.gate.enter(walstream.Epoch(request.Epoch))
	if err != nil {
		return nil, err
	}
	defer release()
	for name, goal := range goals {
		if have := n.txlog.Durable(name); have.Epoch != goal.Epoch || have.TXID < goal.TXID {
			return nil, fmt.Errorf("acknowledge %s of %s: %w: its log stands at %s", goal, name, errNotHere, have)
		}
	}
	return nil, nil
}

// errNotHere says that what was logged has been given up meanwhile.
var errNotHere = errors.New("the position is not in this node's log")
