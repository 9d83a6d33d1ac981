package cluster

import (
	"log/slog"
	"reflect"
	"testing"

	"github.com/lsnode/lsnode/cluster/identity"
	"github.com/lsnode/lsnode/cluster/state"
)

// TestNoTermByOldHistory: while Raft replays its log after a start there is no
// term, since by a history that ends too early the newest of what this node has
// would be off the line.
func TestNoTermByOldHistory(t *testing.T) {
	id, err := identity.Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{identity: id}
	c.machine = newMachine(&c.changed, slog.New(slog.DiscardHandler))
	apply := func(commands ...state.Command) {
		t.Helper()
		for _, command := range commands {
			data, err := command.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if a := c.machine.Apply(1, data).(applied); a.err != nil {
				t.Fatal(a.err)
			}
		}
	}
	reign := func(epoch uint64, node string) []state.Command {
		return []state.Command{{Candidacy: &state.Candidacy{Node: node}}, {Promote: &state.Promote{Epoch: epoch, Node: node}}}
	}
	none := func(when string) {
		t.Helper()
		if got := c.term(); !reflect.DeepEqual(got, Term{}) {
			t.Errorf("%s: %+v", when, got)
		}
	}
	apply(state.Command{PutNode: &state.Node{ID: "a", Name: "a", Address: "a:1"}}, state.Command{PutNode: &state.Node{ID: id.Node(), Name: "self", Address: "b:1"}})
	apply(reign(1, "a")...)
	none("before anyone was asked")
	c.confirm(announceResponse{Epoch: 3, Primary: 2})
	none("at epoch 1 of 3")
	apply(reign(2, "a")...)
	none("at epoch 2 of 3")
	apply(state.Command{Candidacy: &state.Candidacy{Node: "a"}})
	want := Term{Epoch: 2, Primary: "a", Line: c.State().Line()}
	if got := c.term(); !reflect.DeepEqual(got, want) || got.Line.Newest() != 2 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	apply(reign(4, id.Node())...)
	want = Term{Epoch: 4, Line: c.State().Line()}
	if got := c.term(); !reflect.DeepEqual(got, want) {
		t.Errorf("after its own reign: got %+v, want %+v", got, want)
	}
}
