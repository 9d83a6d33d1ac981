package sim

import (
	"errors"
	"math/bits"
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/state"
)

// set is a set of nodes.
type set uint16

func all(n int) set { return 1<<n - 1 }

func (s set) has(i int) bool       { return s&(1<<i) != 0 }
func (s set) toggle(i int) set     { return s ^ 1<<i }
func (s set) size() int            { return bits.OnesCount16(uint16(s)) }
func (s set) majority(of set) bool { return (s & of).size() > of.size()/2 }

func (s set) ids() []string {
	var out []string
	for i := range 16 {
		if s.has(i) {
			out = append(out, id(i))
		}
	}
	return out
}

// entry is one of Raft's log: a command, a configuration, or nothing.
type entry struct {
	term    int
	command *state.Command
	voters  set // a configuration if it is not empty
}

// result is what applying a committed entry has answered.
type result struct {
	epoch uint64
	err   error
}

const (
	heartbeat   = 80 * ms
	raftTimeout = 400 * ms
)

// raft is a small Raft with changes of single voters: without snapshots, with
// whole logs in its messages, and with elections at any time.
type raft struct {
	// On disk.
	term    int
	vote    int // for whom in this term, -1: nobody
	entries []entry

	// The process.
	leader  bool
	votes   set
	match   []int
	known   int // committed, as far as it knows
	applied int // so many of known
	heard   time.Duration
	waiting map[int]func(result) // by index: who has proposed in this term
	asked   *change              // one that waits until the last one is committed
}

// change is asked for by a primary and done by Raft as soon as it can.
type change struct {
	toggle int
	term   int // in which the reign leads that asks for it
	based  int // the index of the configuration that it was checked against
	done   func()
}

// voters returns the newest configuration in the node's log, committed or not,
// and its index.
func (n *node) voters() (set, int) {
	for i, e := range slices.Backward(n.raft.entries) {
		if e.voters != 0 {
			return e.voters, i + 1
		}
	}
	panic("there is always a configuration")
}

// state is what the node has applied.
func (n *node) state() *state.State { return n.w.states[n.raft.applied-1] }

// restartRaft keeps what is on disk. The first configuration is always known.
func (n *node) restartRaft() {
	r := &n.raft
	*r = raft{term: r.term, vote: r.vote, entries: r.entries, applied: 1, known: 1, heard: n.w.now}
	n.in(n.w.between(raftTimeout, 2*raftTimeout), n.timeout)
}

// timeout stands for leader if none was heard of.
func (n *node) timeout() {
	if !n.raft.leader && n.w.now-n.raft.heard > raftTimeout {
		n.campaign()
	}
	n.in(n.w.between(raftTimeout/2, raftTimeout), n.timeout)
}

// campaign stands for leader.
func (n *node) campaign() {
	r := &n.raft
	voters, _ := n.voters()
	if !n.up || r.leader || !voters.has(n.i) {
		return
	}
	n.newTerm(r.term + 1)
	r.vote, r.votes, r.heard = n.i, set(0).toggle(n.i), n.w.now
	term, length, last := r.term, len(r.entries), r.entries[len(r.entries)-1].term
	for to := range n.w.nodes {
		if to != n.i {
			n.w.send(n.i, to, func(v *node) { v.voteFor(n.i, term, length, last) })
		}
	}
	n.counted(term)
}

// newTerm follows nobody yet in a term. A leader's roles hear of it late.
func (n *node) newTerm(term int) {
	r := &n.raft
	if r.leader {
		old := r.term
		r.leader, r.asked = false, nil
		n.in(n.w.between(0, []time.Duration{0, 20 * ms, 2000 * ms}[n.w.rand.IntN(3)]), func() { n.leadershipLost(old) })
	}
	r.term, r.vote, r.votes, r.waiting = term, -1, 0, map[int]func(result){}
}

func (n *node) voteFor(candidate, term, length, last int) {
	r := &n.raft
	if term > r.term {
		n.newTerm(term)
	}
	own := r.entries[len(r.entries)-1].term
	upToDate := last > own || last == own && length >= len(r.entries)
	if term < r.term || !upToDate || r.vote >= 0 && r.vote != candidate {
		return
	}
	r.vote, r.heard = candidate, n.w.now
	n.w.send(n.i, candidate, func(c *node) {
		if c.raft.term == term && c.raft.votes.has(c.i) && !c.raft.leader {
			c.raft.votes |= set(0).toggle(n.i)
			c.counted(term)
		}
	})
}

func (n *node) counted(term int) {
	r := &n.raft
	voters, _ := n.voters()
	if r.term != term || r.leader || !r.votes.majority(voters) {
		return
	}
	r.leader, r.match = true, make([]int, len(n.w.nodes))
	n.append(entry{})
	n.beat(term)
	n.in(n.w.between(0, 20*ms), func() { n.lead(term) })
}

// append appends to a leader's log, on disk, and sends it to all others.
func (n *node) append(e entry) int {
	r := &n.raft
	e.term = r.term
	r.entries = append(r.entries[:len(r.entries):len(r.entries)], e)
	r.match[n.i] = len(r.entries)
	n.replicate()
	n.advanceCommit()
	return len(r.entries)
}

func (n *node) beat(term int) {
	if n.raft.leader && n.raft.term == term {
		n.replicate()
		n.in(heartbeat, func() { n.beat(term) })
	}
}

func (n *node) replicate() {
	term, entries, known := n.raft.term, n.raft.entries, n.raft.known
	for to := range n.w.nodes {
		if to != n.i {
			n.w.send(n.i, to, func(f *node) { f.follow(n.i, term, entries, known) })
		}
	}
}

// follow takes a leader's log.
func (n *node) follow(leader, term int, entries []entry, known int) {
	r := &n.raft
	if term < r.term {
		own := r.term
		n.w.send(n.i, leader, func(l *node) {
			if own > l.raft.term {
				l.newTerm(own)
			}
		})
		return
	}
	if term > r.term {
		n.newTerm(term)
	}
	r.heard = n.w.now
	same := min(len(entries), len(r.entries))
	if same == 0 || entries[same-1].term != r.entries[same-1].term {
		same = 0
		for entries[same].term == r.entries[same].term {
			same++
		}
		r.entries = r.entries[:same:same]
	}
	if len(entries) > len(r.entries) {
		r.entries = entries
	}
	length := len(entries)
	n.w.send(n.i, leader, func(l *node) {
		if l.raft.leader && l.raft.term == term && l.raft.match[n.i] < length {
			l.raft.match[n.i] = length
			l.advanceCommit()
		}
	})
	r.known = max(r.known, min(known, length))
	n.apply()
}

// advanceCommit commits what a majority has, if it is of the leader's own term.
func (n *node) advanceCommit() {
	r := &n.raft
	voters, _ := n.voters()
	for i := len(r.entries); i > r.known && r.entries[i-1].term == r.term; i-- {
		var have set
		for j, m := range r.match {
			if m >= i {
				have |= set(0).toggle(j)
			}
		}
		if have.majority(voters) {
			r.known = i
			n.apply()
			break
		}
	}
	n.change()
}

// apply applies what is known to be committed, a follower sometimes only a part
// of it now.
func (n *node) apply() {
	r := &n.raft
	for r.applied < r.known {
		if !r.leader && n.w.chance(0.1) {
			n.in(n.w.between(0, 100*ms), n.apply)
			return
		}
		e := r.entries[r.applied]
		if r.applied == len(n.w.committed) {
			n.w.commit(e)
		}
		if n.w.committed[r.applied].term != e.term {
			n.w.violate("Raft has committed two entries at index %d", r.applied+1)
		}
		r.applied++
		if done := r.waiting[r.applied]; done != nil {
			delete(r.waiting, r.applied)
			done(n.w.results[r.applied-1])
		}
		n.stateChanged()
	}
}

// commit applies an entry once for all nodes.
func (w *world) commit(e entry) {
	current, res := state.New(), result{}
	if len(w.states) > 0 {
		current = w.states[len(w.states)-1]
	}
	switch {
	case e.command == nil:
	case w.rules.anyCandidacy && e.command.Promote != nil:
		current = forced(current, *e.command.Promote)
	case w.rules.noLine && e.command.Promote != nil:
		p := *e.command.Promote
		current, res = w.applied(current, state.Command{Promote: &state.Promote{Epoch: p.Epoch, Node: p.Node}})
		if res.err == nil {
			current.History[len(current.History)-1].Start = p.Start
		}
	default:
		current, res = w.applied(current, *e.command)
	}
	w.committed, w.states, w.results = append(w.committed, e), append(w.states, current), append(w.results, res)
}

// applied is a state after a command.
func (w *world) applied(s *state.State, c state.Command) (*state.State, result) {
	data, err := c.Encode()
	if err != nil {
		panic(err)
	}
	next, epoch, err := state.Apply(s, data)
	if errors.Is(err, state.ErrOffLine) {
		w.violate("%v", err)
	}
	return next, result{epoch, err}
}

// forced promotes without asking whether the candidacy is the newest.
func forced(s *state.State, p state.Promote) *state.State {
	next := *s
	next.History = append(slices.Clone(s.History), state.Reign{Epoch: p.Epoch, Node: p.Node, Start: p.Start})
	next.Primary = state.Primary{Node: p.Node, Epoch: p.Epoch}
	return &next
}

// propose proposes if the node leads. done is called once it is committed, on
// this node and in this term; otherwise nobody knows whether it will be.
func (n *node) propose(c *state.Command, done func(result)) {
	if n.raft.leader {
		n.raft.waiting[len(n.raft.entries)+1] = done
		n.append(entry{command: c})
	}
}

// change does what was asked for, once the newest configuration and an entry of
// the leader's term are committed.
func (n *node) change() {
	r := &n.raft
	voters, index := n.voters()
	c := r.asked
	if c == nil || !r.leader || index > r.known || r.entries[r.known-1].term != r.term {
		return
	}
	r.asked = nil
	next := voters.toggle(c.toggle)
	switch {
	case next == 0, index != c.based && !n.w.rules.unguarded, r.term != c.term && !n.w.rules.anyTerm:
		return
	}
	n.w.counts.changed++
	n.w.tell(n, "makes %b the voters", next)
	r.waiting[len(r.entries)+1] = func(result) { c.done() }
	n.append(entry{voters: next})
}
