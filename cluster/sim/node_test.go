package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/lease"
	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
)

const db = "app"

// node is the thin part around the pure logic: as small as package cluster and a
// node's data path allow. Here is what every node does; what a candidate and a
// primary does is in primary_test.go.
type node struct {
	w    *world
	i    int
	raft raft

	// On disk.
	promised uint64
	log      []state.Position
	durable  int // so many of log

	// The process.
	up     bool
	life   int // which start
	offset time.Duration
	rate   float64
	voter  *lease.Voter
	floor  uint64 // an epoch that somebody has answered
	// confirmed is a state that there was after this start; by an older one no
	// log is cut.
	confirmed bool
	least     [2]uint64 // of that state: the epoch counter and the newest reign
	settling  uint64    // the newest reign that this node has begun to follow
	settled   uint64    // the reign to whose line the log was cut

	primary
	// left is until when the application can write a database that its process
	// has left open, on the node's clock: the guard fences then.
	left time.Duration
}

func newNode(w *world, i int, first []entry) *node {
	return &node{
		w: w, i: i, raft: raft{vote: -1, entries: first},
		offset: w.between(time.Minute, time.Hour), rate: 0.97 + 0.06*w.rand.Float64(),
	}
}

func (n *node) String() string { return fmt.Sprintf("n%d (epoch %d)", n.i, n.epoch) }

// clock is the node's own.
func (n *node) clock() time.Duration {
	return n.offset + time.Duration(float64(n.w.now)*n.rate)
}

// in plans something for this life.
func (n *node) in(d time.Duration, do func()) {
	life := n.life
	n.w.after(d, func() {
		if n.up && n.life == life {
			do()
		}
	})
}

func (n *node) start() {
	if n.up {
		return
	}
	n.up = true
	n.life++
	n.w.tell(n, "starts at %v, promised %d", n.last(), n.promised)
	started := n.clock()
	if n.w.rules.noStartWait {
		started -= timing.Lease
	}
	n.voter = lease.NewVoter(timing, n.promised, started)
	n.floor, n.confirmed, n.settling, n.settled = 0, n.w.rules.unconfirmed, 0, 0
	n.restartRaft()
	if !n.soleVoter() {
		n.left = 0 // a start fences
	}
	n.announce()
}

// crash loses what is not on disk. The application goes on, until the guard
// fences at the end of the lease, or earlier and says so.
func (n *node) crash() {
	n.up = false
	n.log = n.log[:n.durable]
	n.w.tell(n, "crashes, keeps %v", n.last())
	if n.w.rules.forgetPromise {
		n.promised = 0
	}
	if !n.open {
		n.becomeFollower()
		return
	}
	epoch, life := n.epoch, n.life
	n.left = n.holder.Until()
	n.becomeFollower()
	if n.soleVoter() || n.w.chance(0.5) {
		return // the host died as well, say
	}
	n.w.after(n.w.between(0, 100*ms), func() {
		if n.life == life {
			n.left = 0
			n.tellFenced(epoch)
		}
	})
}

// mayWrite is the claim that is checked: open, and in its own eyes within the
// lease; at the lease's end it is fenced, whatever else happens.
func (n *node) mayWrite() bool {
	if n.open {
		return n.holder.Valid(n.clock())
	}
	return n.clock() < n.left
}

func (n *node) soleVoter() bool {
	voters, _ := n.voters()
	return voters == set(0).toggle(n.i)
}

func (n *node) last() state.Position {
	if len(n.log) == 0 {
		return state.Position{}
	}
	return n.log[len(n.log)-1]
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

// onLine returns the part of a log that is on the line.
func onLine(line state.Line, log []state.Position) []state.Position {
	if len(log) == 0 {
		return nil
	}
	cut := line.Cut(db, log[len(log)-1], lookup(log))
	return log[:slices.Index(log, cut)+1]
}

// announce asks a leader until one has said what the state is, as of now: it
// commits something before it answers.
func (n *node) announce() {
	if n.confirmed {
		return
	}
	for to := range n.w.nodes {
		n.w.send(n.i, to, func(l *node) {
			if !l.raft.leader {
				return
			}
			l.propose(nil, func(result) {
				s := l.state()
				l.w.send(l.i, n.i, func(a *node) {
					if !a.confirmed {
						a.confirmed, a.least = true, [2]uint64{s.Epoch, s.Primary.Epoch}
						a.stateChanged()
					}
				})
			})
		})
	}
	n.in(300*ms, n.announce)
}

// following returns the reign that this node follows: one at a time, of another
// node, and known from a state that is new enough.
func (n *node) following() (state.Primary, bool) {
	s := n.state()
	current := n.confirmed && s.Epoch >= n.least[0] && s.Primary.Epoch >= n.least[1]
	return s.Primary, current && n.leading == 0 && s.Primary.Epoch != 0 && s.Primary.Node != id(n.i)
}

// stateChanged begins to follow: after a while what is off the line, as it was
// at first, is cut.
func (n *node) stateChanged() {
	p, ok := n.following()
	if !ok || n.settling == p.Epoch {
		return
	}
	n.settling = p.Epoch
	line := n.state().Line()
	n.in(n.w.between(0, []time.Duration{0, 100 * ms}[n.w.rand.IntN(2)]), func() {
		if q, ok := n.following(); ok && q.Epoch == p.Epoch && n.settling == p.Epoch {
			n.settled = p.Epoch
			if n.w.rules.noLine {
				return
			}
			n.cutTo(onLine(line, n.log))
		}
	})
}

// cutTo cuts the log, durably.
func (n *node) cutTo(log []state.Position) {
	n.w.tell(n, "cuts its log from %v to %d", n.last(), len(log))
	n.log, n.durable = log, min(n.durable, len(log))
}

// answer is the voter's side of a position request, which it holds for as long as
// it has to wait.
func (n *node) answer(to int, epoch uint64, line state.Line) {
	if to == n.i && n.soleVoter() {
		n.voter.Fenced(line.Newest()) // nobody else can have been promised anything
	}
	d := n.voter.Ask(n.clock(), epoch, line.Newest())
	if d.Wait > 0 {
		n.in(d.Wait, func() { n.answer(to, epoch, line) })
	}
	if promised := n.voter.Promised(); d.Refuse {
		n.w.send(n.i, to, func(c *node) { c.refused(epoch, promised) })
	}
	if !d.Answer {
		return
	}
	// The log is made durable after the promise, and both before the answer.
	n.in(n.w.between(0, 5*ms), func() {
		n.promised, n.durable = max(n.promised, epoch), len(n.log)
		if n.voter.Promised() != epoch {
			return
		}
		log := n.log
		if !n.w.rules.noCut && !n.w.rules.noLine {
			log = onLine(line, log)
		}
		log = slices.Clone(log)
		a := promote.Answer{Node: id(n.i), Positions: map[string]state.Position{}}
		if len(log) > 0 {
			a.Positions[db] = log[len(log)-1]
		}
		n.w.tell(n, "answers epoch %d of %s: %v", epoch, id(to), a.Positions[db])
		n.w.send(n.i, to, func(c *node) { c.answered(epoch, a, log) })
		if n.w.chance(0.03) { // the moment at which what was promised must not be forgotten
			n.in(n.w.between(0, 20*ms), func() {
				n.crash()
				n.w.after(n.w.between(0, 50*ms), n.start)
			})
		}
	})
}

// mayAccept tells whether something in the name of an epoch may be logged or
// acknowledged.
func (n *node) mayAccept(epoch uint64) bool {
	return epoch >= n.voter.Promised() || n.w.rules.acceptLower
}

// accept takes what the primary of an epoch ships: its log, or the beginning of it.
// A node that has not settled yet says no more than where it stands.
func (n *node) accept(from int, epoch uint64, log []state.Position) {
	p, ok := n.following()
	if !ok || p.Epoch != epoch || p.Node != id(from) || !n.mayAccept(epoch) {
		return
	}
	last := n.last()
	switch at := slices.Index(log, last); {
	case n.settled != epoch:
	case at >= 0 || last.IsZero():
		n.log = append(n.log[:len(n.log):len(n.log)], log[at+1:]...)
	case last.Compare(log[len(log)-1]) < 0: // repaired
		same := 0
		for same < len(n.log) && n.log[same] == log[same] {
			same++
		}
		n.w.counts.repaired++
		n.cutTo(n.log[:same:same])
		n.log = append(n.log, log[same:]...)
	}
	n.sync(from, epoch)
}

// sync makes the log durable after a while, then acknowledges what it has.
func (n *node) sync(to int, epoch uint64) {
	ack := func() {
		p := n.last()
		if n.durable > 0 && !n.w.rules.unsyncedAck {
			p = n.log[n.durable-1]
		}
		n.w.send(n.i, to, func(h *node) { h.has(n.i, epoch, p) })
	}
	if n.w.rules.unsyncedAck {
		ack()
	}
	upTo := n.last()
	n.in(n.w.between(0, 30*ms), func() {
		if at := slices.Index(n.log, upTo); at >= 0 {
			n.durable = max(n.durable, at+1)
		}
		if n.mayAccept(epoch) {
			ack()
		}
	})
}
