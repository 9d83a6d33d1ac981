package consensus

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lsnode/lsnode/cluster/mux"
)

// streamLayer is how Raft's transport reaches other nodes: through the port.
type streamLayer struct {
	*mux.Listener
	mux         *mux.Mux
	peerTimeout time.Duration
	refuse      func(nodeID string) bool
	begun       <-chan struct{} // closed when the state is there, by which refuse decides
}

var _ raft.StreamLayer = (*streamLayer)(nil)

// Accept implements [net.Listener].
func (s *streamLayer) Accept() (net.Conn, error) {
	for {
		accepted, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		<-s.begun
		conn := accepted.(*mux.Conn)
		if s.refuse(conn.Peer()) {
			_ = conn.Close()
			continue
		}
		return s.setUp(conn)
	}
}

// Dial implements [raft.StreamLayer].
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := s.mux.Dial(ctx, string(address), Protocol)
	if err != nil {
		return nil, err
	}
	return s.setUp(conn)
}

// setUp makes the kernel give a connection up when the way to the peer is cut,
// so that the next request after it heals dials afresh.
func (s *streamLayer) setUp(conn *mux.Conn) (net.Conn, error) {
	if err := conn.SetPeerTimeout(s.peerTimeout); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// addresses tells Raft's transport where a node is: its current address, and the
// ID that must answer there.
type addresses struct {
	config   Config
	fallback func(raft.ServerID) string // from Raft's configuration
}

var _ raft.ServerAddressProvider = (*addresses)(nil)

// ServerAddr implements [raft.ServerAddressProvider].
func (a *addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	address := a.config.Resolve(string(id))
	switch {
	case string(id) == a.config.Mux.NodeID():
		address = a.config.Advertise
	case address == "":
		address = a.fallback(id)
	}
	if address == "" {
		return "", errNoAddress
	}
	return raft.ServerAddress(mux.At(string(id), address)), nil
}

// patientTransport changes one thing: when replicating to a peer fails, the
// error is held back until the peer answers a heartbeat. Raft counts the
// errors, and after a dozen it waits ten seconds before it tries again; with one
// error for each time that a peer was away it tries again at once. Heartbeats go
// on meanwhile, with waits of at most half the heartbeat timeout.
//
// It holds no error back beyond the leadership, nor for a node that was removed.
// A leadership transfer, for which Raft waits without a bound once one before it
// has timed out, is begun only with a peer that answers (see Consensus.target).
type patientTransport struct {
	*raft.NetworkTransport
	isMember func(raft.ServerID) bool

	mu       sync.Mutex
	leading  context.Context                 // ends with the leadership; guarded by mu
	answered map[raft.ServerID]chan struct{} // closed by the next answer; guarded by mu
	last     map[raft.ServerID]time.Time     // of the last answer; guarded by mu
	beat     chan struct{}                   // closed by any answer; guarded by mu
}

var _ raft.Transport = (*patientTransport)(nil)
var _ raft.WithPreVote = (*patientTransport)(nil)
var _ raft.WithClose = (*patientTransport)(nil)

func newPatientTransport(isMember func(raft.ServerID) bool, t *raft.NetworkTransport) *patientTransport {
	none, cancel := context.WithCancel(context.Background())
	cancel()
	return &patientTransport{
		NetworkTransport: t,
		isMember:         isMember,
		leading:          none,
		answered:         make(map[raft.ServerID]chan struct{}),
		last:             make(map[raft.ServerID]time.Time),
		beat:             make(chan struct{}),
	}
}

// AppendEntries implements [raft.Transport].
func (t *patientTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress,
	req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, target, req, resp)
	switch {
	case err == nil:
		t.heard(id)
	case !isHeartbeat(req):
		t.wait(id)
	}
	return err
}

// isHeartbeat tells the two kinds of request apart as Raft's transport does.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// heard records that a peer has answered a request.
func (t *patientTransport) heard(id raft.ServerID) {
	t.mu.Lock()
	t.last[id] = time.Now()
	close(t.beat)
	t.beat = make(chan struct{})
	t.mu.Unlock()
	t.wake(id)
}

// answers tells whether a peer has answered within the given time.
func (t *patientTransport) answers(id raft.ServerID, within time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.last[id]
	return ok && time.Since(at) < within
}

// nextBeat returns a channel that is closed when any peer answers.
func (t *patientTransport) nextBeat() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.beat
}

// wake ends the waits for a peer.
func (t *patientTransport) wake(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ch := t.answered[id]; ch != nil {
		close(ch)
		delete(t.answered, id)
	}
}

// wait returns when the peer answers, or the leadership ends.
func (t *patientTransport) wait(id raft.ServerID) {
	t.mu.Lock()
	answered := t.answered[id]
	if answered == nil {
		answered = make(chan struct{})
		t.answered[id] = answered
	}
	leading := t.leading
	t.mu.Unlock()
	if !t.isMember(id) { // asked after the channel is made, so that a removal can't be missed
		return
	}
	select {
	case <-answered:
	case <-leading.Done():
	}
}

// setLeading says how long errors may be held back from now on.
func (t *patientTransport) setLeading(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leading = ctx
}
