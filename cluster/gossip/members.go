package gossip

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Member is what is known of a node.
type Member struct {
	ID      string
	Name    string // for people
	Address string // of the node's port, "host:port"
	HTTP    string // address of its HTTP interface
	Version string // of the program
	Role    string // as it last said
	Epoch   uint64 // as it last said
	Alive   bool   // as far as gossip knows
}

// meta is what a node says about itself, JSON of at most 512 bytes. Fields may
// be added.
type meta struct {
	Name    string `json:"n,omitempty"`
	Address string `json:"a,omitempty"`
	HTTP    string `json:"h,omitempty"`
	Version string `json:"v,omitempty"`
	Role    string `json:"r,omitempty"`
	Epoch   uint64 `json:"e,omitempty"`
}

// members collects what memberlist tells, and tells it what this node says about
// itself. memberlist calls it with its own lock held, so it calls nobody.
type members struct {
	nodeID string // this node's
	logger *slog.Logger

	mu      sync.Mutex
	self    meta              // guarded by mu
	alive   map[string]start  // by memberlist's name; guarded by mu
	last    map[string]Member // by node ID: the last that was heard of it; guarded by mu
	changed chan struct{}     // closed at the next change; guarded by mu
}

// start is one start of a node's process.
type start struct {
	at     int64 // Unix nanoseconds by the node's own clock: the newest one counts
	member Member
}

var (
	_ memberlist.Delegate      = (*members)(nil)
	_ memberlist.EventDelegate = (*members)(nil)
)

func newMembers(nodeID string, self meta, logger *slog.Logger) *members {
	return &members{
		nodeID:  nodeID,
		logger:  logger,
		self:    self,
		alive:   make(map[string]start),
		last:    make(map[string]Member),
		changed: make(chan struct{}),
	}
}

// startName returns memberlist's name for one start of a node.
func startName(nodeID string, at int64) string {
	return nodeID + "." + strconv.FormatInt(at, 36)
}

// parseStart reads what memberlist says about one start.
func parseStart(node *memberlist.Node) (start, bool) {
	id, text, ok := strings.Cut(node.Name, ".")
	at, err := strconv.ParseInt(text, 36, 64)
	if !ok || err != nil || id == "" {
		return start{}, false
	}
	m := Member{ID: id, Address: node.Address(), Alive: true}
	var said meta
	if err := json.Unmarshal(node.Meta, &said); err == nil {
		m.Name, m.HTTP, m.Version, m.Role, m.Epoch = said.Name, said.HTTP, said.Version, said.Role, said.Epoch
		m.Address = cmp.Or(said.Address, m.Address)
	}
	return start{at: at, member: m}, true
}

// NotifyJoin implements [memberlist.EventDelegate].
func (m *members) NotifyJoin(node *memberlist.Node) { m.heard(node, "node is alive") }

// NotifyUpdate implements [memberlist.EventDelegate].
func (m *members) NotifyUpdate(node *memberlist.Node) { m.heard(node, "") }

func (m *members) heard(node *memberlist.Node, line string) {
	s, ok := parseStart(node)
	if !ok {
		m.logger.Warn("ignore gossip about a node without an ID", "name", node.Name)
		return
	}
	m.mu.Lock()
	m.alive[node.Name] = s
	m.last[s.member.ID] = m.newestLocked(s.member.ID)
	m.notifyLocked()
	m.mu.Unlock()
	if line != "" && s.member.ID != m.nodeID {
		m.logger.Info(line, "node", s.member.Name, "id", s.member.ID, "address", s.member.Address)
	}
}

// NotifyLeave implements [memberlist.EventDelegate].
func (m *members) NotifyLeave(node *memberlist.Node) {
	m.mu.Lock()
	s, ok := m.alive[node.Name]
	if !ok {
		m.mu.Unlock()
		return
	}
	delete(m.alive, node.Name)
	newest := m.newestLocked(s.member.ID)
	m.last[s.member.ID] = newest
	m.notifyLocked()
	m.mu.Unlock()
	if !newest.Alive {
		m.logger.Info("node is not alive", "node", s.member.Name, "id", s.member.ID, "address", s.member.Address)
	}
}

// newestLocked returns what the newest start of a node that is alive says, or
// the last that was heard.
func (m *members) newestLocked(id string) Member {
	var newest start
	for _, s := range m.alive {
		if s.member.ID == id && (newest.member.ID == "" || s.at > newest.at) {
			newest = s
		}
	}
	if newest.member.ID != "" {
		return newest.member
	}
	gone := m.last[id]
	gone.Alive = false
	return gone
}

// get returns all nodes ever heard of, by ID.
func (m *members) get() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Member, 0, len(m.last))
	for _, member := range m.last {
		all = append(all, member)
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (m *members) one(id string) (Member, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	member, ok := m.last[id]
	return member, ok
}

func (m *members) next() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *members) notifyLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// say changes what this node says about itself, and tells whether that is new.
func (m *members) say(role string, epoch uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.self.Role == role && m.self.Epoch == epoch {
		return false
	}
	m.self.Role, m.self.Epoch = role, epoch
	return true
}

// NodeMeta implements [memberlist.Delegate].
func (m *members) NodeMeta(limit int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, err := json.Marshal(m.self)
	if err != nil || len(data) > limit { // Open has checked the length
		return nil
	}
	return data
}

// check tells whether what this node says is short enough, whatever role and
// epoch it comes to have.
func (s meta) check() error {
	s.Role, s.Epoch = strings.Repeat("x", maxRole), 1<<63
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if len(data) > memberlist.MetaMaxSize {
		return fmt.Errorf("name and addresses together are too long: %d bytes, at most %d", len(data), memberlist.MetaMaxSize)
	}
	return nil
}

// NotifyMsg implements [memberlist.Delegate]; nothing is sent this way.
func (m *members) NotifyMsg([]byte) {}

// GetBroadcasts implements [memberlist.Delegate]; nothing is sent this way.
func (m *members) GetBroadcasts(_, _ int) [][]byte { return nil }

// LocalState implements [memberlist.Delegate]; nothing is sent this way.
func (m *members) LocalState(bool) []byte { return nil }

// MergeRemoteState implements [memberlist.Delegate]; nothing is sent this way.
func (m *members) MergeRemoteState([]byte, bool) {}
