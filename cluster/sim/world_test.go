package sim

import (
	"container/heap"
	"errors"
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
	acceptLower    bool // messages of a lower epoch than answered are accepted
	anyAnswer      bool // this node's own answer is enough to be promoted
	ownPosition    bool // the candidate goes on from its own position
	unsyncedAck    bool // acknowledged before it is durable
	noCut          bool // tails off the line compete
	neverBegin     bool // a reign ships what it has not begun
	anyCandidacy   bool // an old candidacy can be promoted
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
	*q = old[:len(old)-1]
	return e
}

// world is one schedule.
type world struct {
	rules  rules
	rand   *rand.Rand
	now    time.Duration // true time
	events queue
	seq    int
	nodes  []*node
	cut    map[[2]int]bool // links that are down, by (from, to)
	loss   float64

	// registry is what Raft replicates: one truth, changed only by whom the
	// newest term made leader.
	registry *state.State
	term     int
	leader   int

	acked     map[state.Position]bool
	reigns    int
	handovers int
	violation string
}

func newWorld(seed uint64, n int, r rules) *world {
	w := &world{
		rules: r, rand: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]int]bool{},
		registry: state.New(), leader: -1, acked: map[state.Position]bool{},
	}
	w.loss = []float64{0, 0.05, 0.3}[w.rand.IntN(3)]
	for i := range n {
		w.propose(state.Command{PutNode: &state.Node{ID: id(i), Name: id(i), Address: "sim:1"}})
		w.nodes = append(w.nodes, newNode(w, i))
	}
	w.propose(state.Command{AddDatabase: &state.AddDatabase{Name: db}})
	return w
}

func id(i int) string { return fmt.Sprint("n", i) }

// run runs the schedule for a while, or until a violation.
func (w *world) run(length time.Duration) string {
	for _, n := range w.nodes {
		n.start()
	}
	w.after(0, w.trouble)
	w.after(0, w.elect)
	heap.Init(&w.events)
	for len(w.events) > 0 && w.violation == "" {
		e := heap.Pop(&w.events).(event)
		if e.at > length {
			break
		}
		w.now = e.at
		e.do()
		w.check()
	}
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
		case w.chance(0.05):
			delay = w.between(0, 900*ms)
		}
		w.after(delay, func() {
			if n := w.nodes[to]; n.up {
				deliver(n)
			}
		})
	}
}

// trouble crashes nodes and cuts links.
func (w *world) trouble() {
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	switch w.rand.IntN(5) {
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
	default:
		clear(w.cut)
	}
	w.after(w.between(20*ms, 1000*ms), w.trouble)
}

// elect is a Raft without any promise but one leader in a term: it picks anyone
// that is up, at any time, and the old leader hears of it late.
func (w *world) elect() {
	w.term++
	term, old := w.term, w.leader
	w.leader = w.rand.IntN(len(w.nodes))
	if old >= 0 && old != w.leader {
		w.after(w.between(0, 2000*ms), func() { w.nodes[old].leadershipLost(term) })
	}
	elected := w.nodes[w.leader]
	w.after(w.between(0, 20*ms), func() { elected.lead(term) })
	w.after(w.between(100*ms, 3000*ms), w.elect)
}

// propose changes the registry.
func (w *world) propose(c state.Command) (uint64, error) {
	data, err := c.Encode()
	if err != nil {
		panic(err)
	}
	next, epoch, err := state.Apply(w.registry, data)
	w.registry = next
	return epoch, err
}

// proposeAs is propose by a node that was elected in a term: only the newest
// term's can, if it reaches a majority.
func (w *world) proposeAs(n *node, term int, c state.Command) (uint64, bool) {
	reached := 0
	for i, other := range w.nodes {
		if i == n.i || other.up && !w.cut[[2]int{n.i, i}] && !w.cut[[2]int{i, n.i}] {
			reached++
		}
	}
	if term != w.term && !w.rules.anyCandidacy || reached <= len(w.nodes)/2 {
		return 0, false
	}
	if w.rules.anyCandidacy && c.Promote != nil {
		w.registry = forced(w.registry, *c.Promote)
		return c.Promote.Epoch, true
	}
	epoch, err := w.propose(c)
	if errors.Is(err, state.ErrOffLine) {
		w.violate("n%d: %v", n.i, err)
	}
	return epoch, err == nil
}

// forced promotes without asking whether the candidacy is the newest.
func forced(s *state.State, p state.Promote) *state.State {
	next := *s
	next.History = append(slices.Clone(s.History), state.Reign{Epoch: p.Epoch, Node: p.Node, Start: p.Start})
	next.Primary = state.Primary{Node: p.Node, Epoch: p.Epoch}
	return &next
}

// check is what must hold after every event.
func (w *world) check() {
	writing := ""
	for _, n := range w.nodes {
		if !n.mayWrite() {
			continue
		}
		if writing != "" {
			w.violate("%s and n%d may write at %v", writing, n.i, w.now)
		}
		writing = fmt.Sprintf("n%d (epoch %d)", n.i, n.epoch)
	}
}

func (w *world) violate(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf(format, args...)
	}
}

// opened checks a new primary.
func (w *world) opened(n *node) {
	w.reigns++
	history := w.registry.History
	for i := 1; i < len(history); i++ {
		if history[i].Epoch <= history[i-1].Epoch {
			w.violate("epoch %d was promoted after epoch %d", history[i].Epoch, history[i-1].Epoch)
		}
	}
	for p := range w.acked {
		if !slices.Contains(n.log, p) {
			w.violate("n%d opens in epoch %d at %v without the acknowledged %v", n.i, n.epoch, w.now, p)
		}
	}
}
