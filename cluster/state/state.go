package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Version is the version of the state as it is kept in Raft's snapshots. A
// state of a higher version is refused.
const Version = 1

// State is everything that Raft replicates. A State that was handed out is never
// changed: read it without a lock, never write to it.
type State struct {
	Version   int             `json:"version"`
	ClusterID string          `json:"clusterID"`
	Nodes     map[string]Node `json:"nodes,omitempty"` // by ID
	Databases []string        `json:"databases,omitempty"`

	Epoch     uint64  `json:"epoch"`               // the counter: of the newest candidacy, or a floor
	Candidate string  `json:"candidate,omitempty"` // ID of the newest candidacy's node; empty once promoted or void
	Primary   Primary `json:"primary"`             // the newest that was promoted
	History   []Reign `json:"history,omitempty"`

	// Recovered is the counter as the last recovery of a lost majority has set it,
	// zero if there was none; Dropped are the members that it went on without, by
	// ID, until they join anew.
	Recovered uint64          `json:"recovered,omitempty"`
	Dropped   map[string]Node `json:"dropped,omitempty"`

	// Archive is the coarse progress of archiving each database. Its form is
	// the archive's business.
	Archive map[string]json.RawMessage `json:"archive,omitempty"`
}

// Node is a member, dead or alive.
type Node struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Address  string    `json:"address"`
	HTTP     string    `json:"http,omitempty"`
	Nonvoter bool      `json:"nonvoter,omitempty"` // it wishes to stay a read replica
	Priority int       `json:"priority,omitempty"` // breaks ties in a promotion: the higher one first
	Joined   time.Time `json:"joined"`
}

// Primary says who was promoted last. The zero value means that nobody was yet.
type Primary struct {
	Node  string    `json:"node,omitempty"` // the ID
	Epoch uint64    `json:"epoch,omitempty"`
	Since time.Time `json:"since"`
}

// New returns the state before the first command.
func New() *State { return &State{Version: Version} }

// Line returns the history as the logs see it.
func (s *State) Line() Line { return Line{Reigns: s.History} }

// Named returns the node of a name, and whether there is one.
func (s *State) Named(name string) (Node, bool) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// Find returns the node of an ID or, failing that, of a name.
func (s *State) Find(idOrName string) (Node, bool) {
	if n, ok := s.Nodes[idOrName]; ok {
		return n, true
	}
	return s.Named(idOrName)
}

// Members returns the nodes in the order of their names.
func (s *State) Members() []Node {
	return slices.SortedFunc(maps.Values(s.Nodes), func(a, b Node) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return 0
	})
}

// Encode returns the state as a Raft snapshot keeps it.
func (s *State) Encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode cluster state: %w", err)
	}
	return b, nil
}

// Decode is the inverse of [State.Encode].
func Decode(b []byte) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode cluster state: %w", err)
	}
	if s.Version < 1 || s.Version > Version {
		return nil, fmt.Errorf("decode cluster state: %w: version %d, this program knows 1 to %d", ErrVersion, s.Version, Version)
	}
	return s, nil
}

// clone returns a copy whose own maps and slices may be changed. The values in
// them may not: they are replaced.
func (s *State) clone() *State {
	c := *s
	c.Nodes = maps.Clone(s.Nodes)
	c.Dropped = maps.Clone(s.Dropped)
	c.Databases = slices.Clone(s.Databases)
	c.History = slices.Clone(s.History)
	c.Archive = maps.Clone(s.Archive)
	return &c
}
