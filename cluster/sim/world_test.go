package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/lease"
	"github.com/lsnode/lsnode/cluster/state"
)

// rules are what the logic rests on; each true field takes one out.
type rules struct {
	noHold         bool // a renewal's answer is no promise
	noStartWait    bool // a restarted voter answers at once
	noMargin       bool // the primary writes to the lease's very end
	countFromReply bool // the lease counts from the answer, not from the sending
	fencedTooEarly bool // "fenced" is said before it is true
	forgetPromise  bool // the answered epoch is not durable
	acceptLower    bool // what comes in the name of a lower epoch than answered is accepted
	anyAnswer      bool // this node's own answer is enough to be promoted
	ownPosition    bool // the candidate goes on from its own position
	unsyncedAck    bool // a follower acknowledges before it is durable
	unsyncedOwn    bool // the primary counts itself before it is durable
	olderEpochs    bool // a sync counts positions of earlier epochs as well
	noCut          bool // tails off the line are offered
	noLine         bool // positions compete by epoch and TXID alone, as in Raft; no line is asked
	anyCandidacy   bool // an old candidacy can be promoted
	unconfirmed    bool // a node cuts its log by a history that is still being replayed
	syncStart      bool // a sync counts the voters that the reign began with
	leaseStart     bool // the lease counts the voters that the reign began with
	leaseLate      bool // the lease counts new voters only when who asked for them has an answer
	anyVoter       bool // nodes become voters, or cease to be, whatever the others have
	unguarded      bool // a change of voters is not tied to the configuration that it was checked against
	anyTerm        bool // a change of voters is made in whatever term the node leads by then
}

const ms = time.Millisecond

var timing = lease.Timing{Renewal: 100 * ms, Lease: 600 * ms, Margin: 100 * ms}

// event is something that happens at a time.
type event struct {
	at  time.Duration
	seq int // of those at one time, the order in which they were planned
	do  func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// world is one schedule.
type world struct {
	rules   rules
	changes bool // voters change
	rand    *rand.Rand
	now     time.Duration // true time
	events  queue
	seq     int
	nodes   []*node
	cut     map[[2]int]bool // links that are down, by (from, to)
	loss    float64
	pace    time.Duration // at most so long between changes of voters
	calm    time.Duration // at most so long between troubles
	partial float64       // so many pulls end early

	// What Raft has committed, and the state after each entry. Every node has
	// applied a part of it.
	committed []entry
	states    []*state.State
	results   []result

	acked     map[state.Position]bool
	reigning  map[uint64]string // by epoch: the node and its life
	counts    counts
	violation string
	story     func(line string) // gets what happens, if it is set
}

// tell tells what happens.
func (w *world) tell(n *node, format string, args ...any) {
	if w.story != nil {
		w.story(fmt.Sprintf("%12v %s ", w.now, id(n.i)) + fmt.Sprintf(format, args...))
	}
}

// counts are what has happened, to see that a good deal does.
type counts struct{ reigns, acked, changed, repaired, handed int }

func (c *counts) add(d counts) {
	c.reigns += d.reigns
	c.acked += d.acked
	c.changed += d.changed
	c.repaired += d.repaired
	c.handed += d.handed
}

func newWorld(seed uint64, n int, changes bool, r rules) *world {
	w := &world{
		rules: r, changes: changes, rand: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]int]bool{},
		acked: map[state.Position]bool{}, reigning: map[uint64]string{},
	}
	w.loss = []float64{0, 0.05, 0.3}[w.rand.IntN(3)]
	w.pace = []time.Duration{100 * ms, 600 * ms}[w.rand.IntN(2)]
	w.calm = []time.Duration{1000 * ms, 1000 * ms, 400 * ms}[w.rand.IntN(3)]
	w.partial = []float64{0.2, 0.2, 0.9}[w.rand.IntN(3)]
	voters := all(n)
	if changes {
		voters = all(1 + w.rand.IntN(n))
	}
	first := []entry{{voters: voters}}
	w.commit(first[0])
	for i := range n {
		first = append(first, entry{command: &state.Command{PutNode: &state.Node{ID: id(i), Name: id(i), Address: "sim:1"}}})
	}
	first = append(first, entry{command: &state.Command{AddDatabase: &state.AddDatabase{Name: db}}})
	for i := range n {
		w.nodes = append(w.nodes, newNode(w, i, first))
	}
	return w
}

var ids = [...]string{"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"}

func id(i int) string { return ids[i] }

// run runs the schedule for a while, or until a violation.
func (w *world) run(length time.Duration) string {
	for _, n := range w.nodes {
		n.start()
	}
	w.after(0, w.trouble)
	w.after(0, w.elect)
	for len(w.events) > 0 && w.violation == "" {
		e := heap.Pop(&w.events).(event)
		if e.at > length {
			break
		}
		w.now = e.at
		e.do()
		w.check()
	}
	w.counts.acked = len(w.acked)
	return w.violation
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{at: w.now + d, seq: w.seq, do: do})
}

// between returns a random time.
func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rand.Int64N(int64(high-low)+1))
}

func (w *world) chance(p float64) bool { return w.rand.Float64() < p }

// send delivers a message, late, twice, or never. It is delivered to the life
// that the receiver has then.
func (w *world) send(from, to int, deliver func(n *node)) {
	if from != to && (w.cut[[2]int{from, to}] || w.chance(w.loss)) {
		return
	}
	copies := 1
	if w.chance(0.02) {
		copies = 2
	}
	for range copies {
		delay := w.between(0, 3*ms)
		switch {
		case from == to:
			delay = 0
		case w.chance(0.03):
			delay = w.between(0, 900*ms)
		}
		w.after(delay, func() {
			if n := w.nodes[to]; n.up {
				deliver(n)
			}
		})
	}
}

// trouble crashes nodes, cuts links, and makes primaries resign.
func (w *world) trouble() {
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	switch w.rand.IntN(8) {
	case 0, 1:
		if n.up {
			n.crash()
			w.after(w.between(0, 500*ms), n.start)
		}
	case 2: // one node from all others, or one way only
		both := w.chance(0.5)
		for i := range w.nodes {
			w.cut[[2]int{n.i, i}] = true
			w.cut[[2]int{i, n.i}] = w.cut[[2]int{i, n.i}] || both
		}
	case 3: // some links
		for i := range w.nodes {
			for j := range w.nodes {
				w.cut[[2]int{i, j}] = w.chance(0.3)
			}
		}
	case 4: // two sides
		side := set(w.rand.IntN(1 << len(w.nodes)))
		for i := range w.nodes {
			for j := range w.nodes {
				w.cut[[2]int{i, j}] = side.has(i) != side.has(j)
			}
		}
	case 5:
		for _, p := range w.nodes {
			if p.open {
				p.resign(n.i)
			}
		}
	default:
		clear(w.cut)
	}
	w.after(w.between(20*ms, w.calm), w.trouble)
}

// elect forces elections, whatever the nodes' own timers say.
func (w *world) elect() {
	w.nodes[w.rand.IntN(len(w.nodes))].campaign()
	w.after(w.between(100*ms, 4000*ms), w.elect)
}

// check is what must hold after every event.
func (w *world) check() {
	var writing *node
	for _, n := range w.nodes {
		if !n.mayWrite() {
			continue
		}
		if writing != nil {
			w.violate("%s and %s may write at %v", writing, n, w.now)
		}
		writing = n
	}
}

func (w *world) violate(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf(format, args...)
	}
}

// opened checks a new primary.
func (w *world) opened(n *node) {
	w.counts.reigns++
	w.tell(n, "opens in epoch %d at %v", n.epoch, n.last())
	who := fmt.Sprintf("%s in life %d", id(n.i), n.life)
	if other, ok := w.reigning[n.epoch]; ok && other != who {
		w.violate("epoch %d has two primaries: %s and %s", n.epoch, other, who)
	}
	w.reigning[n.epoch] = who
	history := n.state().History
	for i := 1; i < len(history); i++ {
		if history[i].Epoch <= history[i-1].Epoch {
			w.violate("epoch %d was promoted after epoch %d", history[i].Epoch, history[i-1].Epoch)
		}
	}
	has := make(map[state.Position]bool, len(n.log))
	for _, p := range n.log {
		has[p] = true
	}
	var lost []state.Position
	for p := range w.acked {
		if !has[p] {
			lost = append(lost, p)
		}
	}
	if len(lost) > 0 {
		first := slices.MinFunc(lost, state.Position.Compare)
		w.violate("n%d opens in epoch %d at %v without the acknowledged %v", n.i, n.epoch, w.now, first)
	}
}
