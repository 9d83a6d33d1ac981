package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"
)

// CommandVersion is the version of the commands in the Raft log.
const CommandVersion = 1

// MaxHistory and MaxStarts bound the reigns that are kept, and the starts in them
// all together, so that the history fits in a message. Older reigns are dropped,
// but for those that hold the newest start of some database: a log that ends that
// far back is repaired by comparing pages.
const (
	MaxHistory = 512
	MaxStarts  = 20_000
)

// What a command can be refused for. The state stays as it was.
var (
	ErrVersion      = errors.New("unknown version")
	ErrInvalid      = errors.New("invalid")
	ErrOtherCluster = errors.New("another cluster")
	ErrNameTaken    = errors.New("name is taken")
	ErrUnknownNode  = errors.New("unknown node")
	ErrStaleEpoch   = errors.New("no longer the newest epoch")
	ErrOffLine      = errors.New("start position is not on the history's line")
)

// Command is one entry of the Raft log: exactly one of its pointers is set.
type Command struct {
	Version        int             `json:"v"`
	Init           *Init           `json:"init,omitempty"`
	PutNode        *Node           `json:"putNode,omitempty"`
	RemoveNode     *RemoveNode     `json:"removeNode,omitempty"`
	AddDatabase    *AddDatabase    `json:"addDatabase,omitempty"`
	RemoveDatabase *RemoveDatabase `json:"removeDatabase,omitempty"`
	Candidacy      *Candidacy      `json:"candidacy,omitempty"`
	Promote        *Promote        `json:"promote,omitempty"`
	RaiseEpoch     *RaiseEpoch     `json:"raiseEpoch,omitempty"`
	Archive        *Archive        `json:"archive,omitempty"`
}

// Init names a new cluster. Repeated with the same ID it does nothing.
type Init struct {
	ClusterID string `json:"clusterID"`
}

// RemoveNode forgets a node, so that its name is free.
type RemoveNode struct {
	ID string `json:"id"`
}

// AddDatabase registers a database and begins it from nothing in the reign of an
// epoch, unless that reign has begun it already. Epoch zero only registers.
type AddDatabase struct {
	Name  string `json:"name"`
	Epoch uint64 `json:"epoch,omitempty"`
}

// RemoveDatabase unregisters a database. Its history stays.
type RemoveDatabase struct {
	Name string `json:"name"`
}

// Candidacy makes the next epoch, above Floor, for a node.
type Candidacy struct {
	Node  string `json:"node"`
	Floor uint64 `json:"floor,omitempty"`
}

// Promote makes the node of the newest candidacy primary. A zero start begins
// the database from nothing if no reign has begun it yet, otherwise it is left
// out: an empty copy does not end a line.
type Promote struct {
	Epoch uint64              `json:"epoch"`
	Node  string              `json:"node"`
	Start map[string]Position `json:"start,omitempty"`
	At    time.Time           `json:"at"`
}

// RaiseEpoch sets the counter to at least Floor.
type RaiseEpoch struct {
	Floor uint64 `json:"floor"`
}

// Archive keeps the coarse progress of archiving a database.
type Archive struct {
	Database string          `json:"database"`
	Progress json.RawMessage `json:"progress"`
}

// Encode returns the command as the Raft log keeps it.
func (c Command) Encode() ([]byte, error) {
	c.Version = CommandVersion
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return b, nil
}

// Apply returns the state after an entry of the Raft log, and the epoch of a
// candidacy. A refused command returns its reason and the state as it was. It
// depends on nothing but its arguments.
func Apply(s *State, entry []byte) (*State, uint64, error) {
	var c Command
	if err := json.Unmarshal(entry, &c); err != nil {
		return s, 0, fmt.Errorf("decode command: %w: %w", ErrInvalid, err)
	}
	if c.Version != CommandVersion {
		return s, 0, fmt.Errorf("decode command: %w %d", ErrVersion, c.Version)
	}
	next := s.clone()
	if err := next.apply(c); err != nil {
		return s, 0, err
	}
	return next, next.Epoch, nil
}

func (s *State) apply(c Command) error {
	switch {
	case c.Init != nil:
		return s.init(*c.Init)
	case c.PutNode != nil:
		return s.putNode(*c.PutNode)
	case c.RemoveNode != nil:
		return s.removeNode(*c.RemoveNode)
	case c.AddDatabase != nil:
		return s.addDatabase(*c.AddDatabase)
	case c.RemoveDatabase != nil:
		return s.removeDatabase(*c.RemoveDatabase)
	case c.Candidacy != nil:
		return s.candidacy(*c.Candidacy)
	case c.Promote != nil:
		return s.promote(*c.Promote)
	case c.RaiseEpoch != nil:
		s.Epoch = max(s.Epoch, c.RaiseEpoch.Floor) // a candidacy below it is void: promote compares
		return nil
	case c.Archive != nil:
		return s.archive(*c.Archive)
	}
	return fmt.Errorf("apply command: %w: it is empty or of a kind that this program does not know", ErrInvalid)
}

func (s *State) init(c Init) error {
	switch s.ClusterID {
	case c.ClusterID:
		return nil
	case "":
		s.ClusterID = c.ClusterID
		return nil
	}
	return fmt.Errorf("name cluster %s: %w: this is %s", c.ClusterID, ErrOtherCluster, s.ClusterID)
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (s *State) putNode(n Node) error {
	if n.ID == "" || n.Address == "" || !namePattern.MatchString(n.Name) {
		return fmt.Errorf("put node %q (%s): %w: it needs an ID, an address and a name of 1 to 64 letters, digits, dots, underscores and hyphens", n.Name, n.ID, ErrInvalid)
	}
	if other, ok := s.Named(n.Name); ok && other.ID != n.ID {
		return fmt.Errorf("put node %s: %w by node %s", n.Name, ErrNameTaken, other.ID)
	}
	if old, ok := s.Nodes[n.ID]; ok {
		n.Joined = old.Joined
	}
	if s.Nodes == nil {
		s.Nodes = map[string]Node{}
	}
	s.Nodes[n.ID] = n
	delete(s.Dropped, n.ID)
	return nil
}

func (s *State) removeNode(c RemoveNode) error {
	if _, ok := s.Nodes[c.ID]; !ok {
		return fmt.Errorf("remove node %s: %w", c.ID, ErrUnknownNode)
	}
	delete(s.Nodes, c.ID)
	if s.Candidate == c.ID {
		s.Candidate = ""
	}
	return nil
}

func (s *State) addDatabase(c AddDatabase) error {
	if !namePattern.MatchString(c.Name) || c.Name == "." || c.Name == ".." {
		return fmt.Errorf("add database %q: %w name", c.Name, ErrInvalid)
	}
	if c.Epoch != 0 {
		if err := s.begin(c.Name, c.Epoch); err != nil {
			return err
		}
	}
	if !slices.Contains(s.Databases, c.Name) {
		s.Databases = append(s.Databases, c.Name)
		slices.Sort(s.Databases)
	}
	return nil
}

// begin lets a database begin from nothing in the newest reign, if that has not
// begun it. A newer candidacy that has asked for positions already is no
// obstacle: its starts are checked against the line when it is promoted.
func (s *State) begin(db string, epoch uint64) error {
	last := len(s.History) - 1
	if last < 0 || s.History[last].Epoch != epoch {
		return fmt.Errorf("begin database %s in epoch %d: %w: that is %d", db, epoch, ErrStaleEpoch, s.Primary.Epoch)
	}
	reign := s.History[last]
	if _, ok := reign.Start[db]; ok {
		return nil
	}
	reign.Start = maps.Clone(reign.Start)
	if reign.Start == nil {
		reign.Start = map[string]Position{}
	}
	reign.Start[db] = Position{}
	s.History[last] = reign
	return nil
}

func (s *State) removeDatabase(c RemoveDatabase) error {
	s.Databases = slices.DeleteFunc(s.Databases, func(n string) bool { return n == c.Name })
	delete(s.Archive, c.Name)
	return nil
}

func (s *State) candidacy(c Candidacy) error {
	if _, ok := s.Nodes[c.Node]; !ok {
		return fmt.Errorf("record candidacy of node %s: %w", c.Node, ErrUnknownNode)
	}
	s.Epoch = max(s.Epoch, c.Floor) + 1
	s.Candidate = c.Node
	return nil
}

func (s *State) promote(c Promote) error {
	if c.Epoch != s.Epoch || c.Node != s.Candidate || c.Node == "" {
		return fmt.Errorf("promote node %s in epoch %d: %w: that is %d, of node %q", c.Node, c.Epoch, ErrStaleEpoch, s.Epoch, s.Candidate)
	}
	line := s.Line()
	start := map[string]Position{}
	for db, p := range c.Start {
		switch {
		case !line.OnLine(db, p) || p.Epoch >= c.Epoch:
			return fmt.Errorf("promote node %s in epoch %d: database %s at %s: %w", c.Node, c.Epoch, db, p, ErrOffLine)
		case p.IsZero() && len(line.Segments(db)) > 0:
			// Whoever has the data may still come back.
		default:
			start[db] = p
		}
	}
	s.History = trim(append(s.History, Reign{Epoch: c.Epoch, Node: c.Node, Start: start}))
	s.Primary = Primary{Node: c.Node, Epoch: c.Epoch, Since: c.At}
	s.Candidate = ""
	return nil
}

// trim drops the oldest reigns beyond MaxHistory and MaxStarts, but for those that
// hold the newest start of a database.
func trim(history []Reign) []Reign {
	keep, starts := 0, 0 // of the newest
	for keep < min(len(history), MaxHistory) {
		starts += len(history[len(history)-1-keep].Start)
		if starts > MaxStarts && keep > 0 {
			break
		}
		keep++
	}
	excess := len(history) - keep
	if excess == 0 {
		return history
	}
	newest := map[string]bool{} // databases begun in a later reign
	for _, r := range history[excess:] {
		for db := range r.Start {
			newest[db] = true
		}
	}
	var kept []Reign // of the excess, the newest first
	for i := excess - 1; i >= 0; i-- {
		needed := false
		for db := range history[i].Start {
			needed = needed || !newest[db]
			newest[db] = true
		}
		if needed {
			kept = append(kept, history[i])
		}
	}
	slices.Reverse(kept)
	return append(kept, history[excess:]...)
}

func (s *State) archive(c Archive) error {
	if !slices.Contains(s.Databases, c.Database) {
		return fmt.Errorf("record archive of database %q: %w: it is not registered", c.Database, ErrInvalid)
	}
	if s.Archive == nil {
		s.Archive = map[string]json.RawMessage{}
	}
	s.Archive[c.Database] = c.Progress
	return nil
}
