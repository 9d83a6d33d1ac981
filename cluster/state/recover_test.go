package state

import (
	"errors"
	"reflect"
	"testing"
)

func TestRecover(t *testing.T) {
	s := New()
	s.ClusterID, s.Epoch, s.Candidate = "c", 7, "b"
	s.Nodes = map[string]Node{"a": {ID: "a", Name: "n1"}, "b": {ID: "b", Name: "n2"}}
	s.Dropped = map[string]Node{"z": {ID: "z", Name: "n9"}}
	s.History = []Reign{{Epoch: 5, Node: "b"}}
	next, err := s.Recover("a", 2_000_017)
	if err != nil {
		t.Fatal(err)
	}
	want := s.clone()
	want.Nodes = map[string]Node{"a": {ID: "a", Name: "n1"}}
	want.Dropped = map[string]Node{"b": {ID: "b", Name: "n2"}, "z": {ID: "z", Name: "n9"}}
	want.Epoch, want.Recovered, want.Candidate = 3_000_000, 3_000_000, ""
	if !reflect.DeepEqual(next, want) {
		t.Errorf("got %+v, want %+v", next, want)
	}
	if len(s.Nodes) != 2 || len(s.Dropped) != 1 {
		t.Errorf("the state before has changed: %+v", s)
	}
	// Who joins anew is not dropped any more.
	if err := next.putNode(Node{ID: "b", Name: "n2", Address: "b:1"}); err != nil || len(next.Dropped) != 1 {
		t.Errorf("%v, %+v", err, next.Dropped)
	}
	if _, err := s.Recover("c", 0); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("a node that is no member: %v", err)
	}
}
