package promote

import (
	"errors"
	"reflect"
	"testing"

	"github.com/lsnode/lsnode/cluster/state"
)

func pos(epoch, txid uint64) state.Position {
	return state.Position{Epoch: epoch, TXID: txid, Checksum: 1<<63 | txid}
}

var none = state.Position{}

// answer is a node's answer about "app" and, if given, "log".
func answer(node string, positions ...state.Position) Answer {
	a := Answer{Node: node, Positions: map[string]state.Position{}}
	for i, p := range positions {
		if p != none {
			a.Positions[[]string{"app", "log"}[i]] = p
		}
	}
	return a
}

func (a Answer) noPromote() Answer                   { a.NoPromote = true; return a }
func (a Answer) priority(n int) Answer               { a.Priority = n; return a }
func target(p state.Position, from ...string) Target { return Target{Position: p, From: from} }

// The line: epoch 3 went on from 1/10 and is open; 1/11 and all of 2 are off it.
var line = state.Line{Reigns: []state.Reign{
	{Epoch: 1, Start: map[string]state.Position{"app": {}, "log": {}}},
	{Epoch: 2, Start: map[string]state.Position{"app": pos(1, 10), "log": {}}},
	{Epoch: 3, Start: map[string]state.Position{"app": pos(1, 10), "log": pos(2, 7)}},
}}

func TestChoose(t *testing.T) {
	for name, c := range map[string]struct {
		answers []Answer
		want    Plan // Reason is not compared
	}{
		"all the same": {
			[]Answer{answer("a", pos(3, 20)), answer("b", pos(3, 20)), answer("c", pos(3, 20))},
			Plan{Targets: map[string]Target{"app": target(pos(3, 20), "a", "b", "c"), "log": target(none, "a", "b", "c")}},
		},
		"another one is ahead": {
			[]Answer{answer("a", pos(3, 20)), answer("b", pos(3, 25))},
			Plan{Targets: map[string]Target{"app": target(pos(3, 25), "b"), "log": target(none, "a", "b")}},
		},
		"a higher epoch with a lower TXID is ahead": {
			[]Answer{answer("a", pos(1, 10)), answer("b", pos(3, 10))},
			Plan{Targets: map[string]Target{"app": target(pos(3, 10), "b"), "log": target(none, "a", "b")}},
		},
		"each database for itself": {
			[]Answer{answer("a", pos(3, 20), pos(3, 8)), answer("b", pos(3, 25), pos(2, 7))},
			Plan{Targets: map[string]Target{"app": target(pos(3, 25), "b"), "log": target(pos(3, 8), "a")}},
		},
		"tails off the line don't compete": {
			[]Answer{answer("a", pos(1, 10)), answer("b", pos(1, 99)), answer("c", pos(2, 50))},
			Plan{Targets: map[string]Target{"app": target(pos(1, 10), "a"), "log": target(none, "a", "b", "c")}},
		},
		"empty does not win": {
			[]Answer{answer("a"), answer("b"), answer("c", pos(1, 1))},
			Plan{HandOver: "c", Targets: map[string]Target{"app": target(pos(1, 1), "c"), "log": target(none, "a", "b", "c")}},
		},
		"an empty node fetches if no other one has everything": {
			[]Answer{answer("a"), answer("b", pos(3, 20), pos(2, 7)), answer("c", pos(3, 19), pos(3, 9))},
			Plan{Targets: map[string]Target{"app": target(pos(3, 20), "b"), "log": target(pos(3, 9), "c")}},
		},
		"priority breaks a tie": {
			[]Answer{answer("a", pos(3, 20)), answer("b", pos(3, 20)).priority(1), answer("c", pos(3, 20)).priority(2)},
			Plan{HandOver: "c", Targets: map[string]Target{"app": target(pos(3, 20), "a", "b", "c"), "log": target(none, "a", "b", "c")}},
		},
		"priority chooses no position": {
			[]Answer{answer("a", pos(3, 20)), answer("b", pos(3, 19)).priority(9)},
			Plan{Targets: map[string]Target{"app": target(pos(3, 20), "a"), "log": target(none, "a", "b")}},
		},
		"nor wins over who has to fetch only a tail": {
			[]Answer{answer("a", pos(3, 19)), answer("b", pos(3, 20)).priority(9)},
			Plan{Targets: map[string]Target{"app": target(pos(3, 20), "b"), "log": target(none, "a", "b")}},
		},
		"who abstains hands over, even to one that lacks something": {
			[]Answer{answer("a", pos(3, 20)).noPromote(), answer("b", pos(3, 18)), answer("c", pos(3, 20)).noPromote()},
			Plan{HandOver: "b", Targets: map[string]Target{"app": target(pos(3, 20), "a", "c"), "log": target(none, "a", "b", "c")}},
		},
		"who abstains is not handed over to": {
			[]Answer{answer("a"), answer("b", pos(3, 18)).noPromote()},
			Plan{Targets: map[string]Target{"app": target(pos(3, 18), "b"), "log": target(none, "a", "b")}},
		},
		"two contents: what more nodes have": {
			[]Answer{answer("a", state.Position{Epoch: 3, TXID: 20, Checksum: 1}), answer("b", pos(3, 20)), answer("c", pos(3, 20))},
			Plan{Targets: map[string]Target{"app": target(pos(3, 20), "b", "c"), "log": target(none, "a", "b", "c")}},
		},
		"a replica's and a second answer don't count": {
			[]Answer{answer("a", pos(3, 20)), answer("x", pos(3, 99)), answer("b", pos(3, 19)), answer("b", pos(3, 50))},
			Plan{Targets: map[string]Target{"app": target(pos(3, 20), "a"), "log": target(none, "a", "b")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(Input{Self: "a", Voters: []string{"a", "b", "c"}, Databases: []string{"app", "log"}, Line: line, Answers: c.answers})
			if err != nil {
				t.Fatal(err)
			}
			if (got.HandOver != "") != (got.Reason != "") {
				t.Errorf("reason is %q", got.Reason)
			}
			got.Reason = ""
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("\ngot  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestChooseNeedsMajorityAndSelf(t *testing.T) {
	for name, c := range map[string]struct {
		answers []Answer
		want    error
	}{
		"nobody":                       {nil, ErrNoMajority},
		"one of three":                 {[]Answer{answer("a")}, ErrNoMajority},
		"one of three, twice":          {[]Answer{answer("a"), answer("a")}, ErrNoMajority},
		"one and a replica":            {[]Answer{answer("a"), answer("x")}, ErrNoMajority},
		"a majority without itself":    {[]Answer{answer("b"), answer("c")}, ErrNoMajority},
		"all abstain":                  {[]Answer{answer("a").noPromote(), answer("b").noPromote()}, ErrAbstain},
		"abstains, handed over before": {[]Answer{answer("a").noPromote(), answer("excluded")}, ErrAbstain},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Self: "a", Voters: []string{"a", "b", "c"}, Line: line, Answers: c.answers}
			if name == "abstains, handed over before" {
				in.Voters, in.Excluded = []string{"a", "excluded", "c"}, []string{"excluded"}
			}
			if _, err := Choose(in); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
