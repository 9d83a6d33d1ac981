package promote

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/lsnode/lsnode/cluster/state"
)

// ErrAbstain is returned when this node abstains from being primary and no other
// can be handed over to.
var ErrAbstain = errors.New("this node abstains from being primary and no other one can be")

// ErrNoMajority is returned when fewer than a majority of the voters have
// answered, or this node has not.
var ErrNoMajority = errors.New("no majority has answered")

// Answer is what one node says of itself. It has promised never to accept
// anything of a lower epoch again, so that the positions are final.
type Answer struct {
	Node      string                    `json:"node"`
	Positions map[string]state.Position `json:"positions,omitempty"` // durable, cut back to the line
	NoPromote bool                      `json:"noPromote,omitempty"` // it abstains from being primary
	Priority  int                       `json:"priority,omitempty"`  // breaks ties: the higher one first
}

// Target is what a database has to stand at before its reign begins.
type Target struct {
	Position state.Position // zero: nobody has anything
	// From are the IDs of the nodes whose logs reach the position, this node
	// first if its own does.
	From []string
}

// Plan is what the candidate does: hands over if HandOver is set, otherwise
// stands at the targets.
type Plan struct {
	HandOver string // the ID of the node that should be candidate instead
	Reason   string // why it hands over, in words for the log
	Targets  map[string]Target
}

// Input is what the decision depends on.
type Input struct {
	Self      string
	Voters    []string // of the newest configuration
	Databases []string // registered
	Line      state.Line
	Answers   []Answer
	// Excluded are nodes that it can't hand over to: it was tried.
	Excluded []string
}

// Choose decides. Answers of nodes that are not voters don't count towards the
// majority and are not chosen from.
func Choose(in Input) (Plan, error) {
	answers := in.counted()
	if need := len(in.Voters)/2 + 1; len(answers) < need {
		return Plan{}, fmt.Errorf("choose positions: %w: %d of %d voters, %d needed", ErrNoMajority, len(answers), len(in.Voters), need)
	}
	self := slices.IndexFunc(answers, func(a Answer) bool { return a.Node == in.Self })
	if self < 0 {
		return Plan{}, fmt.Errorf("choose positions: %w: this node itself has not", ErrNoMajority)
	}
	plan := Plan{Targets: make(map[string]Target, len(in.Databases))}
	for _, db := range in.Databases {
		plan.Targets[db] = in.target(db, answers)
	}
	plan.HandOver, plan.Reason = in.better(answers[self], answers, plan.Targets)
	if answers[self].NoPromote && plan.HandOver == "" {
		return Plan{}, ErrAbstain
	}
	return plan, nil
}

// counted returns one answer of each voter, in the order of their IDs.
func (in Input) counted() []Answer {
	var out []Answer
	for _, a := range in.Answers {
		seen := slices.ContainsFunc(out, func(b Answer) bool { return a.Node == b.Node })
		if !seen && slices.Contains(in.Voters, a.Node) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Answer) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// position returns what a node has of a database that counts.
func (in Input) position(db string, a Answer) state.Position {
	if p := a.Positions[db]; in.Line.OnLine(db, p) {
		return p
	}
	return state.Position{}
}

// target returns the most advanced position and who has it. Of two contents at
// one position, which only a fault outside the protocol can make, the one that
// more nodes have counts.
func (in Input) target(db string, answers []Answer) Target {
	var best Target
	for _, a := range answers {
		p := in.position(db, a)
		if c := p.Compare(best.Position); c < 0 || c == 0 && p == best.Position && best.From != nil {
			continue
		}
		t := Target{Position: p, From: in.holders(db, p, answers)}
		if p.Compare(best.Position) > 0 || len(t.From) > len(best.From) {
			best = t
		}
	}
	return best
}

// holders returns the nodes that stand at a position, this one first.
func (in Input) holders(db string, p state.Position, answers []Answer) []string {
	var out []string
	for _, a := range answers {
		switch {
		case in.position(db, a) != p:
		case a.Node == in.Self:
			out = slices.Insert(out, 0, a.Node)
		default:
			out = append(out, a.Node)
		}
	}
	return out
}

// better returns a node that should be candidate instead, and why. Unless this
// node abstains it has to stand at every target, so that the next candidate has
// no reason to hand back.
func (in Input) better(self Answer, answers []Answer, targets map[string]Target) (string, string) {
	var others []Answer // the one that lacks least first, then the highest priority
	for _, a := range answers {
		if a.Node != in.Self && !a.NoPromote && !slices.Contains(in.Excluded, a.Node) {
			others = append(others, a)
		}
	}
	if len(others) == 0 {
		return "", ""
	}
	slices.SortStableFunc(others, func(a, b Answer) int {
		return cmp.Or(cmp.Compare(in.lacks(a, targets), in.lacks(b, targets)), cmp.Compare(b.Priority, a.Priority))
	})
	first := others[0]
	complete := in.lacks(first, targets) == 0
	switch {
	case self.NoPromote:
		return first.Node, "this node abstains from being primary"
	case complete && in.seeds(self, targets):
		return first.Node, "this node would have to fetch a whole database and that one has everything"
	case complete && in.lacks(self, targets) == 0 && first.Priority > self.Priority:
		return first.Node, "that node has everything too and a higher priority"
	}
	return "", ""
}

// lacks counts the databases whose target a node does not stand at.
func (in Input) lacks(a Answer, targets map[string]Target) int {
	n := 0
	for db, t := range targets {
		if in.position(db, a) != t.Position {
			n++
		}
	}
	return n
}

// seeds tells whether a node has nothing of a database that others have.
func (in Input) seeds(a Answer, targets map[string]Target) bool {
	for db, t := range targets {
		if !t.Position.IsZero() && in.position(db, a).IsZero() {
			return true
		}
	}
	return false
}
