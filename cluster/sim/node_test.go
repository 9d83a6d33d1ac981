package sim

import (
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/lease"
	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
)

const db = "app"

// node is the thin part around the pure logic: as small as package cluster and a
// node's data path allow.
type node struct {
	w *world
	i int

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

	// As candidate and primary.
	leading int    // the term; 0: not
	epoch   uint64 // of the candidacy or reign
	line    state.Line
	answers []promote.Answer
	planned bool
	holder  *lease.Holder
	open    bool                        // unfenced
	logs    map[string][]state.Position // that came with the answers
	acks    map[string]state.Position   // by node
}

func newNode(w *world, i int) *node {
	return &node{w: w, i: i, offset: w.between(0, time.Hour), rate: 0.97 + 0.06*w.rand.Float64()}
}

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
	started := n.clock()
	if n.w.rules.noStartWait {
		started -= timing.Lease
	}
	n.voter = lease.NewVoter(timing, n.promised, started)
	n.becomeFollower()
}

// crash loses what is not on disk. A guard, or the death of the host, has fenced
// by the end of the lease: here at once, which is no weaker for what is checked
// of others.
func (n *node) crash() {
	n.up = false
	n.log = n.log[:n.durable]
	if n.w.rules.forgetPromise {
		n.promised = 0
	}
	n.becomeFollower()
}

func (n *node) becomeFollower() {
	n.leading, n.epoch, n.answers, n.planned, n.holder, n.open = 0, 0, nil, false, nil, false
	n.logs = map[string][]state.Position{}
}

// mayWrite is the claim that is checked: open, and in its own eyes within the
// lease; at the lease's end it fences, whatever else it knows.
func (n *node) mayWrite() bool {
	return n.up && n.open && n.holder != nil && n.holder.Valid(n.clock())
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

// leadershipLost ends candidacy and reign, if it is about an earlier term.
func (n *node) leadershipLost(term int) {
	if n.up && n.leading != 0 && n.leading < term {
		n.stepDown()
	}
}

// stepDown fences, then says so.
func (n *node) stepDown() {
	epoch, wasPlanned := n.epoch, n.planned
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

// lead stands for primary.
func (n *node) lead(term int) {
	if !n.up || n.leading != 0 {
		return
	}
	epoch, ok := n.w.proposeAs(n, term, state.Command{Candidacy: &state.Candidacy{Node: id(n.i)}})
	if !ok {
		return
	}
	n.leading, n.epoch, n.line = term, epoch, n.w.registry.Line()
	n.ask(epoch)
}

// ask asks all voters, again and again, until it is planned or over.
func (n *node) ask(epoch uint64) {
	if n.epoch != epoch || n.planned {
		return
	}
	for to := range n.w.nodes {
		n.w.send(n.i, to, func(v *node) { v.answer(n.i, epoch, n.line) })
	}
	n.in(250*ms, func() { n.ask(epoch) })
}

// answer is the voter's side of a position request, which it holds for as long as
// it has to wait.
func (n *node) answer(to int, epoch uint64, line state.Line) {
	d := n.voter.Ask(n.clock(), epoch, line.Newest())
	if d.Wait > 0 {
		n.in(d.Wait, func() { n.answer(to, epoch, line) })
	}
	if !d.Answer {
		return
	}
	n.promised = n.voter.Promised()
	log := n.log[:n.durable]
	if !n.w.rules.noCut {
		log = onLine(line, log)
	}
	a := promote.Answer{Node: id(n.i), Positions: map[string]state.Position{}}
	if len(log) > 0 {
		a.Positions[db] = log[len(log)-1]
	}
	log = slices.Clone(log)
	n.w.send(n.i, to, func(c *node) { c.answered(epoch, a, log) })
}

// answered takes an answer, with the log that could be fetched from there; with
// enough of them it plans.
func (n *node) answered(epoch uint64, a promote.Answer, log []state.Position) {
	if n.epoch != epoch || n.planned || n.logs[a.Node] != nil {
		return
	}
	n.answers = append(n.answers, a)
	n.logs[a.Node] = append([]state.Position{{}}, log...) // never nil
	in := promote.Input{Self: id(n.i), Databases: []string{db}, Line: n.line, Answers: n.answers}
	for i := range n.w.nodes {
		in.Voters = append(in.Voters, id(i))
	}
	switch {
	case n.w.rules.anyAnswer || n.w.rules.ownPosition && n.logs[id(n.i)] != nil && len(n.answers) > len(in.Voters)/2:
		in.Voters = []string{id(n.i)}
	case n.w.rules.noCut:
		in.Line = state.Line{}
	}
	plan, err := promote.Choose(in)
	if err != nil {
		return
	}
	if plan.HandOver != "" { // this Raft can't: it goes on, fetching the whole
		n.w.handovers++
	}
	n.advance(plan.Targets[db])
}

// advance makes the log stand at the target, then commits the reign and begins
// to renew. All of it takes time, in which anything may happen.
func (n *node) advance(target promote.Target) {
	n.planned = true
	epoch := n.epoch
	log := n.logs[target.From[0]][1:]
	log = slices.Clone(log[:slices.Index(log, target.Position)+1])
	own := timing
	if n.w.rules.noMargin {
		own.Margin = 0
	}
	n.holder = lease.NewHolder(epoch, id(n.i), own)
	n.holder.SetVoters(n.voters())
	n.renew(epoch)
	fetching := n.w.between(0, 200*ms)
	if n.w.chance(0.5) {
		fetching = 0
	}
	n.in(fetching, func() {
		if n.epoch != epoch || n.voter.Promised() > epoch {
			return
		}
		n.log, n.durable = log, len(log)
		start := state.Promote{Epoch: epoch, Node: id(n.i), Start: map[string]state.Position{db: target.Position}}
		if _, ok := n.w.proposeAs(n, n.leading, state.Command{Promote: &start}); ok {
			n.in(n.w.between(0, 5*ms), func() { n.reign(epoch) })
		}
	})
}

func (n *node) voters() []string {
	var out []string
	for i := range n.w.nodes {
		out = append(out, id(i))
	}
	return out
}

// renew renews with everyone as long as this is the epoch.
func (n *node) renew(epoch uint64) {
	if n.epoch != epoch || n.holder == nil {
		return
	}
	if n.open && !n.holder.Valid(n.clock()) {
		n.stepDown() // the lease is lost
		return
	}
	sent := n.clock()
	for to := range n.w.nodes {
		n.w.send(n.i, to, func(v *node) {
			promises := v.promises(epoch)
			if !promises {
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

// reign opens for writing once the lease is held.
func (n *node) reign(epoch uint64) {
	switch {
	case n.epoch != epoch || n.open:
	case !n.holder.Valid(n.clock()):
		n.in(2*ms, func() { n.reign(epoch) })
	case !n.begun(epoch):
		n.stepDown()
	default:
		n.voter.Reign(epoch)
		n.open = true
		n.acks = map[string]state.Position{}
		n.w.opened(n)
		last := n.last()
		n.ship(state.Position{Epoch: epoch, TXID: last.TXID, Checksum: last.Checksum})
		n.write(epoch)
	}
}

// begun begins the database in the reign if nobody who answered had anything of
// it: before that its positions are not on the line.
func (n *node) begun(epoch uint64) bool {
	if _, ok := n.w.registry.Line().Start(db, epoch); ok || n.w.rules.neverBegin {
		return true
	}
	_, ok := n.w.proposeAs(n, n.leading, state.Command{AddDatabase: &state.AddDatabase{Name: db, Epoch: epoch}})
	return ok
}

func (n *node) write(epoch uint64) {
	if !n.mayWrite() || n.epoch != epoch {
		return
	}
	last := n.last()
	n.ship(state.Position{Epoch: epoch, TXID: last.TXID + 1, Checksum: last.Checksum*31 + epoch})
	n.in(n.w.between(30*ms, 300*ms), func() { n.write(epoch) })
}

// ship logs a position and sends it to the others, with all before it for who
// has a gap.
func (n *node) ship(p state.Position) {
	n.log = append(n.log, p)
	log, epoch := slices.Clone(n.log), n.epoch
	n.sync(n.i, epoch)
	for to := range n.w.nodes {
		if to != n.i {
			n.w.send(n.i, to, func(f *node) { f.accept(n.i, epoch, log) })
		}
	}
}

// accept takes what a primary ships, unless a higher epoch was answered, or this
// node is candidate or primary: it plays one role at a time.
func (n *node) accept(from int, epoch uint64, log []state.Position) {
	if n.leading != 0 {
		return
	}
	if epoch < n.voter.Promised() && !n.w.rules.acceptLower {
		return
	}
	if n.last().Compare(log[len(log)-1]) >= 0 {
		return // late
	}
	same := 0
	for same < min(len(n.log), len(log)) && n.log[same] == log[same] {
		same++
	}
	n.log, n.durable = append(n.log[:same:same], log[same:]...), min(n.durable, same)
	n.sync(from, epoch)
}

// sync makes the log durable after a while, then acknowledges.
func (n *node) sync(to int, epoch uint64) {
	upTo := n.last()
	ack := func() {
		n.w.send(n.i, to, func(p *node) { p.acked(n.i, epoch, upTo) })
	}
	if n.w.rules.unsyncedAck {
		ack()
	}
	n.in(n.w.between(0, 30*ms), func() {
		if epoch < n.voter.Promised() && !n.w.rules.acceptLower {
			return
		}
		at := slices.Index(n.log, upTo)
		if at < 0 {
			return
		}
		n.durable = max(n.durable, at+1)
		ack()
	})
}

// acked counts acknowledgements of positions in the current epoch. It counts
// also when the lease is over: that a majority has it is what matters.
func (n *node) acked(from int, epoch uint64, p state.Position) {
	if n.epoch != epoch || !n.open || p.Epoch != epoch {
		return
	}
	if p.Compare(n.acks[id(from)]) <= 0 {
		return
	}
	n.acks[id(from)] = p
	for _, q := range n.log {
		have := 0
		for _, a := range n.acks {
			if q.Compare(a) <= 0 {
				have++
			}
		}
		if q.Epoch == epoch && have > len(n.w.nodes)/2 {
			n.w.acked[q] = true
		}
	}
}
