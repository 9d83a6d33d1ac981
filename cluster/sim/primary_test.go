package sim

import (
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/lease"
	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
)

// primary is what a node keeps as candidate and primary.
type primary struct {
	leading int    // the term; 0: not
	epoch   uint64 // of the candidacy or reign
	line    state.Line
	asking  set // the voters of the candidacy
	answers []promote.Answer
	logs    map[string][]state.Position // that came with the answers
	planned bool
	holder  *lease.Holder
	begun   set  // the voters that the reign began with
	open    bool // unfenced

	// The sync barrier.
	base    state.Position         // where the reign began
	known   map[int]state.Position // what a node has on disk, of any epoch
	acked   state.Position         // the last one that a sync could answer
	changes bool                   // somebody changes the voters
}

func (n *node) becomeFollower() {
	n.primary = primary{}
	n.settling, n.settled = 0, 0
	if n.up {
		n.stateChanged()
	}
}

// leadershipLost ends candidacy and reign of a term.
func (n *node) leadershipLost(term int) {
	if n.leading == term {
		n.stepDown()
	}
}

// stepDown fences, then says so. A sole voter's database stays open.
func (n *node) stepDown() {
	epoch, wasPlanned := n.epoch, n.planned
	n.w.tell(n, "steps down in epoch %d", epoch)
	if n.open && n.soleVoter() {
		n.left = lease.Forever
	}
	if n.w.rules.fencedTooEarly && n.open {
		n.tellFenced(epoch)
		n.in(300*ms, n.becomeFollower)
		return
	}
	n.becomeFollower()
	if wasPlanned {
		n.tellFenced(epoch)
	}
}

func (n *node) tellFenced(epoch uint64) {
	for to := range n.w.nodes {
		n.w.send(n.i, to, func(v *node) { v.voter.Fenced(epoch) })
	}
}

// resign hands over to a node, as a switchover does after it has fenced.
func (n *node) resign(to int) {
	if n.soleVoter() {
		return
	}
	n.stepDown()
	n.handOver(to)
}

func (n *node) handOver(to int) {
	n.w.counts.handed++
	n.w.send(n.i, to, func(t *node) { t.campaign() })
}

// lead stands for primary, as long as Raft lets this node lead.
func (n *node) lead(term int) {
	if !n.raft.leader || n.raft.term != term {
		return
	}
	again := func() { n.in(n.w.between(20*ms, 200*ms), func() { n.lead(term) }) }
	if n.leading != 0 {
		again()
		return
	}
	n.becomeFollower()
	n.leading = term
	n.propose(&state.Command{Candidacy: &state.Candidacy{Node: id(n.i), Floor: max(n.floor, n.voter.Promised())}}, func(r result) {
		if n.leading != term || n.epoch != 0 || r.err != nil {
			return
		}
		n.asking, _ = n.voters()
		n.w.tell(n, "stands in epoch %d, voters %b", r.epoch, n.asking)
		n.epoch, n.line, n.logs = r.epoch, n.state().Line(), map[string][]state.Position{}
		n.confirmed, n.least = true, [2]uint64{max(n.least[0], r.epoch), n.least[1]}
		n.ask(r.epoch)
		n.in(4*timing.Lease, func() { n.giveUp(r.epoch, term) })
	})
	n.in(4*timing.Lease, again)
}

// giveUp ends a candidacy that came to nothing; lead tries again.
func (n *node) giveUp(epoch uint64, term int) {
	if n.epoch == epoch && n.leading == term && !n.open {
		n.stepDown()
	}
}

func (n *node) refused(epoch, promised uint64) {
	n.floor = max(n.floor, promised)
	if n.epoch == epoch && !n.planned {
		n.becomeFollower()
	}
}

// ask asks all voters, again and again, until it is planned or over.
func (n *node) ask(epoch uint64) {
	if n.epoch != epoch || n.planned {
		return
	}
	for to := range n.w.nodes {
		if n.asking.has(to) {
			n.w.send(n.i, to, func(v *node) { v.answer(n.i, epoch, n.line) })
		}
	}
	n.in(250*ms, func() { n.ask(epoch) })
}

// answered plans as soon as that is possible.
func (n *node) answered(epoch uint64, a promote.Answer, log []state.Position) {
	if n.epoch != epoch || n.planned {
		return
	}
	n.answers = append(n.answers, a)
	n.logs[a.Node] = log
	in := promote.Input{Self: id(n.i), Voters: n.asking.ids(), Databases: []string{db}, Line: n.line, Answers: n.answers}
	own := n.logs[id(n.i)] != nil
	switch {
	case n.w.rules.anyAnswer || n.w.rules.ownPosition && own && len(n.logs) > len(in.Voters)/2:
		in.Voters = []string{id(n.i)}
	case n.w.rules.noCut || n.w.rules.noLine:
		in.Line = state.Line{}
	}
	plan, err := promote.Choose(in)
	if err != nil {
		return
	}
	n.planned = true
	if plan.HandOver != "" && n.w.chance(0.7) {
		target := slices.IndexFunc(n.w.nodes, func(t *node) bool { return id(t.i) == plan.HandOver })
		n.stepDown()
		n.handOver(target)
		return
	}
	n.advance(plan.Targets[db])
}

// advance makes the log stand at the target, then commits the reign and begins
// to renew. All of it takes time, in which anything may happen.
func (n *node) advance(target promote.Target) {
	epoch, term := n.epoch, n.leading
	var log []state.Position
	if !target.Position.IsZero() {
		from := n.logs[target.From[0]]
		log = slices.Clone(from[:slices.Index(from, target.Position)+1])
	}
	own := timing
	if n.w.rules.noMargin {
		own.Margin = 0
	}
	n.holder = lease.NewHolder(epoch, id(n.i), own)
	n.begun, _ = n.voters()
	n.holder.SetVoters(n.begun.ids())
	n.renew(epoch)
	fetching := n.w.between(0, []time.Duration{0, 0, 200 * ms, 1500 * ms}[n.w.rand.IntN(4)])
	n.in(fetching, func() {
		if n.epoch != epoch || n.voter.Promised() > epoch {
			return
		}
		n.log, n.durable, n.base = log, len(log), target.Position
		n.propose(&state.Command{Promote: &state.Promote{Epoch: epoch, Node: id(n.i), Start: map[string]state.Position{db: target.Position}}}, func(r result) {
			switch {
			case n.epoch != epoch || n.leading != term:
			case r.err != nil:
				n.stepDown()
			default:
				n.in(n.w.between(0, 5*ms), func() { n.reign(epoch) })
			}
		})
	})
}

// held tells whether the lease is, after it was told who the voters are now.
func (n *node) held() bool {
	if !n.w.rules.leaseStart && !n.w.rules.leaseLate {
		n.refresh()
	}
	return n.holder.Valid(n.clock())
}

func (n *node) refresh() {
	voters, _ := n.voters()
	n.holder.SetVoters(voters.ids())
}

// renew renews with everyone as long as this is the epoch.
func (n *node) renew(epoch uint64) {
	if n.epoch != epoch || n.holder == nil {
		return
	}
	if n.open && !n.held() {
		n.stepDown() // the lease is lost
		return
	}
	sent := n.clock()
	for to := range n.w.nodes {
		n.w.send(n.i, to, func(v *node) {
			if !v.promises(epoch) {
				return
			}
			n.w.send(v.i, n.i, func(h *node) {
				if h.epoch != epoch || h.holder == nil {
					return
				}
				at := sent
				if n.w.rules.countFromReply {
					at = h.clock()
				}
				h.holder.Answered(id(v.i), at)
			})
		})
	}
	n.in(timing.Renewal, func() { n.renew(epoch) })
}

func (n *node) promises(epoch uint64) bool {
	if n.w.rules.noHold {
		return epoch >= n.voter.Promised()
	}
	return n.voter.Renew(n.clock(), epoch, timing.Lease)
}

// reign opens for writing once the lease is held, and the database has begun: if
// nobody who answered had anything of it, its positions are not on the line before.
func (n *node) reign(epoch uint64) {
	if n.epoch != epoch || n.open {
		return
	}
	if !n.held() {
		n.in(5*ms, func() { n.reign(epoch) })
		return
	}
	if _, ok := n.state().Line().Start(db, epoch); !ok {
		n.begin(epoch)
		return
	}
	n.voter.Reign(epoch)
	n.open, n.left, n.known = true, 0, map[int]state.Position{}
	n.w.opened(n)
	last := n.last()
	n.write(state.Position{Epoch: epoch, TXID: last.TXID, Checksum: last.Checksum})
	n.work(epoch)
	n.tip(epoch)
	n.members(epoch)
}

// begin begins the database in the reign, through whichever node leads by then,
// again and again until the answer has come.
func (n *node) begin(epoch uint64) {
	if n.epoch != epoch || n.open {
		return
	}
	for to := range n.w.nodes {
		n.w.send(n.i, to, func(l *node) {
			l.propose(&state.Command{AddDatabase: &state.AddDatabase{Name: db, Epoch: epoch}}, func(r result) {
				if r.err == nil {
					l.w.send(l.i, n.i, func(p *node) { p.inBegun(epoch) })
				}
			})
		})
	}
	n.in(300*ms, func() { n.begin(epoch) })
}

// inBegun goes on with the reign once this node knows itself that it has begun the
// database.
func (n *node) inBegun(epoch uint64) {
	if n.epoch != epoch || n.open {
		return
	}
	if _, ok := n.state().Line().Start(db, epoch); ok {
		n.reign(epoch)
		return
	}
	n.in(10*ms, func() { n.inBegun(epoch) })
}

// work is the application.
func (n *node) work(epoch uint64) {
	n.in(n.w.between(30*ms, 300*ms), func() {
		if n.epoch == epoch && n.open && n.held() {
			n.write(state.Position{Epoch: epoch, TXID: n.last().TXID + 1, Checksum: n.w.rand.Uint64()})
			n.work(epoch)
		}
	})
}

// write logs a position and ships it.
func (n *node) write(p state.Position) {
	n.log = append(n.log, p)
	upTo := len(n.log)
	if n.w.rules.unsyncedOwn {
		n.has(n.i, n.epoch, p)
	}
	n.in(n.w.between(0, 30*ms), func() {
		if n.epoch == p.Epoch && n.open {
			n.durable = max(n.durable, upTo)
			n.has(n.i, p.Epoch, p)
		}
	})
	n.ship()
}

// ship sends the log to the others: all of it, since who has a gap pulls what it
// lacks; and sometimes a pull ends early.
func (n *node) ship() {
	epoch := n.epoch
	for to := range n.w.nodes {
		log := n.log[:len(n.log):len(n.log)]
		if len(log) > 1 && n.w.chance(n.w.partial) {
			log = log[:1+n.w.rand.IntN(len(log)-1)]
		}
		if to != n.i {
			n.w.send(n.i, to, func(f *node) { f.accept(n.i, epoch, log) })
		}
	}
}

// tip ships again what may have been lost.
func (n *node) tip(epoch uint64) {
	n.in(200*ms, func() {
		if n.epoch == epoch && n.open {
			n.ship()
			n.tip(epoch)
		}
	})
}

// has notes what a node has on disk, and answers the syncs of what a majority of
// the voters has then, this node among them. It does so also when the lease is
// over: that a majority has it is what matters.
func (n *node) has(node int, epoch uint64, p state.Position) {
	if n.epoch != epoch || !n.open || p.Compare(n.known[node]) <= 0 {
		return
	}
	n.known[node] = p
	n.w.tell(n, "knows that n%d has %v", node, p)
	voters, _ := n.voters()
	if n.w.rules.syncStart {
		voters = n.begun
	}
	for _, q := range slices.Backward(n.log) {
		if q.Epoch != epoch && !n.w.rules.olderEpochs || q.Compare(n.acked) <= 0 {
			return
		}
		if have := n.holders(q); have.majority(voters) && have.has(n.i) {
			n.acknowledge(q)
			return
		}
	}
}

// holders are the nodes that have a position on disk: of another epoch than the
// reign's own that can't be known.
func (n *node) holders(q state.Position) set {
	var have set
	for i, p := range n.known {
		if q.Compare(p) <= 0 && (p.Epoch == n.epoch || n.w.rules.olderEpochs) {
			have |= set(0).toggle(i)
		}
	}
	return have
}

// acknowledge answers the syncs up to a position.
func (n *node) acknowledge(q state.Position) {
	for _, p := range slices.Backward(n.log) {
		if p.Compare(n.acked) <= 0 || p.Epoch != n.epoch && !n.w.rules.olderEpochs {
			break
		}
		if p.Compare(q) <= 0 {
			n.w.acked[p] = true
		}
	}
	n.w.tell(n, "acknowledges %v in epoch %d", q, n.epoch)
	n.acked = q
}

// members changes the voters now and then, one at a time.
func (n *node) members(epoch uint64) {
	if !n.w.changes {
		return
	}
	n.in(n.w.between(20*ms, n.w.pace), func() {
		if n.epoch == epoch && n.open && n.held() {
			if node := n.w.rand.IntN(len(n.w.nodes)); node != n.i && !n.changes {
				n.toggle(epoch, node)
			}
			n.members(epoch)
		}
	})
}

// toggle makes a node a voter, or takes its vote. Who has asked for it may go
// away before it is done.
func (n *node) toggle(epoch uint64, node int) {
	voters, index := n.voters()
	if !n.mayChange(voters, node) {
		return
	}
	n.changes = true
	term := n.leading
	over := func() {
		if n.epoch == epoch && n.changes {
			n.changes = false
			if !n.w.rules.leaseStart {
				n.refresh()
			}
		}
	}
	n.in(n.w.between(0, []time.Duration{5 * ms, 5 * ms, 1500 * ms}[n.w.rand.IntN(3)]), func() {
		n.raft.asked = &change{toggle: node, term: term, based: index, done: over}
		n.change()
	})
	n.in(n.w.between(10*ms, []time.Duration{100 * ms, 4000 * ms}[n.w.rand.IntN(2)]), over)
}

// mayChange tells whether a node has caught up, so that it can become a voter,
// or whether a majority of the others has.
func (n *node) mayChange(voters set, node int) bool {
	if n.w.rules.anyVoter {
		return true
	}
	var caughtUp set
	for i, p := range n.known {
		if p.Compare(n.base) >= 0 && (n.acked.IsZero() || n.holders(n.acked).has(i)) {
			caughtUp |= set(0).toggle(i)
		}
	}
	if voters.has(node) {
		return caughtUp.majority(voters.toggle(node))
	}
	return caughtUp.has(node) && n.holder.Fresh(id(node), n.clock())
}
