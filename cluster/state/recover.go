package state

import (
	"fmt"
	"maps"
)

// epochStep is how far a recovery sets the counter ahead: nodes that could not be
// asked may have been in more epochs than is known, and none may come twice.
const epochStep = 1_000_000

// Recover returns the state in which one node goes on alone, after a majority of
// the voters was lost: all other members are dropped, and the counter is above
// the floor and above any epoch that the others can have reached. The history
// stays, so that what is off its line is found on those who come back.
func (s *State) Recover(self string, floor uint64) (*State, error) {
	node, ok := s.Nodes[self]
	if !ok {
		return nil, fmt.Errorf("recover cluster: %w: %s is not a member as far as it knows itself", ErrUnknownNode, self)
	}
	next := s.clone()
	if next.Dropped == nil {
		next.Dropped = map[string]Node{}
	}
	maps.Copy(next.Dropped, s.Nodes)
	delete(next.Dropped, self)
	next.Nodes = map[string]Node{self: node}
	next.Epoch = (max(s.Epoch, floor)/epochStep + 1) * epochStep
	next.Recovered, next.Candidate = next.Epoch, ""
	return next, nil
}
