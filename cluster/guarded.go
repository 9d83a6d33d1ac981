package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/cluster/secure"
)

// Peer is where a node can be called by another process of a member's host.
type Peer struct {
	ID      string `json:"id"`
	Address string `json:"address"` // HOST:PORT
}

// Peers returns the voters but this node, for [TellFenced] of a process that
// may have to speak for it.
func (c *Cluster) Peers() []Peer {
	var peers []Peer
	for _, id := range c.Voters() {
		if address := c.hostport(id); id != c.Self() && address != "" {
			peers = append(peers, Peer{ID: id, Address: address})
		}
	}
	return peers
}

// Timing returns the timing table that this node goes by.
func (c *Cluster) Timing() Timing { return c.config.Timing }

// fencedAnswer says how fit a voter is to be the next candidate.
type fencedAnswer struct {
	LastIndex uint64 `json:"lastIndex"` // of its Raft log: with an older one than a majority's it can't be elected
	Abstains  bool   `json:"abstains"`  // it does not want to be primary
	Priority  int    `json:"priority"`
}

// campaignAnswer says whether a voter stands, or somebody leads.
type campaignAnswer struct {
	Began bool `json:"began"`
}

// answerFenced takes a primary's word, or that of its guard.
func (c *Cluster) answerFenced(epoch uint64) fencedAnswer {
	c.voter.fenced(epoch)
	data := c.currentData()
	return fencedAnswer{
		LastIndex: c.raft.LastIndex(), Priority: c.config.Priority,
		Abstains: data == nil || data.NoPromote() || !c.IsVoter(c.Self()),
	}
}

// campaign stands for election at once, in place of a node whose guard has
// fenced it. Somebody who leads already is left alone.
func (c *Cluster) campaign(ctx context.Context, from string) (began bool, err error) {
	if leader := c.Leader(); leader != "" && leader != from {
		return true, nil
	}
	return c.raft.Campaign(ctx)
}

// Spokesman tells the voters what a node can't tell them itself any more: it is
// the part of the guard that talks. It needs no port of its own.
type Spokesman struct {
	client *rpc.Client
}

// NewSpokesman returns one that speaks for a node, with the token in its data
// dir.
func NewSpokesman(token secure.Token, node string) (*Spokesman, error) {
	credentials, err := secure.NewCredentials(token, node)
	if err != nil {
		return nil, fmt.Errorf("speak for node %s: %w", node, err)
	}
	config := credentials.ClientConfig(rpc.Protocol)
	return &Spokesman{client: rpc.NewClient(func(ctx context.Context, address string) (net.Conn, error) {
		return dialPeer(ctx, config, address)
	})}, nil
}

// dialPeer connects to "ID@HOST:PORT", and to nobody else there.
func dialPeer(ctx context.Context, config *tls.Config, address string) (net.Conn, error) {
	id, hostport, err := mux.SplitAddress(address)
	if err != nil {
		return nil, err
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", hostport)
	if err != nil {
		return nil, fmt.Errorf("dial node %s: %w", address, err)
	}
	peer, err := secure.PeerID(conn.(*tls.Conn).ConnectionState())
	if err == nil && peer != id {
		err = mux.ErrWrongNode
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial node %s: %w", address, err), conn.Close())
	}
	return conn, nil
}

// Close ends the connections.
func (s *Spokesman) Close() error { return s.client.Close() }

// TellFenced tells voters that nothing can be written in an epoch or below any
// more, and then asks the one that is fittest to stand for election at once. It
// returns when they have heard it or ctx ends; once a majority could have, the
// rest is waited for a moment only. heard is how many have; one that has not
// waits until its promises end. That nothing can be written is for the caller to
// know.
func (s *Spokesman) TellFenced(ctx context.Context, epoch uint64, voters []Peer) (heard int, err error) {
	told := s.tellAll(ctx, epoch, voters)
	var errs []error
	told = slices.DeleteFunc(told, func(t toldPeer) bool {
		if t.err != nil {
			errs = append(errs, t.err)
		}
		return t.err != nil
	})
	slices.SortStableFunc(told, func(a, b toldPeer) int { return b.compare(a) })
	for _, t := range told {
		if t.answer.Abstains {
			break
		}
		var answer campaignAnswer
		err := decodeError(s.client.Call(ctx, mux.At(t.peer.ID, t.peer.Address), methodCampaign, empty{}, &answer))
		if err != nil {
			errs = append(errs, fmt.Errorf("ask node %s to stand for election: %w", t.peer.ID, err))
		}
		if answer.Began {
			break
		}
	}
	return len(told), errors.Join(errs...)
}

// tellGrace is how long the last voters are waited for once a majority has
// heard: those can elect already.
const tellGrace = 30 * time.Millisecond

// toldPeer is what a voter has answered.
type toldPeer struct {
	peer   Peer
	answer fencedAnswer
	err    error
}

// compare tells which is fitter to be elected.
func (t toldPeer) compare(u toldPeer) int {
	order := func(less, more bool) int {
		switch {
		case less:
			return -1
		case more:
			return 1
		}
		return 0
	}
	if c := order(t.answer.Abstains && !u.answer.Abstains, !t.answer.Abstains && u.answer.Abstains); c != 0 {
		return c
	}
	if c := order(t.answer.LastIndex < u.answer.LastIndex, t.answer.LastIndex > u.answer.LastIndex); c != 0 {
		return c
	}
	return order(t.answer.Priority < u.answer.Priority, t.answer.Priority > u.answer.Priority)
}

func (s *Spokesman) tellAll(ctx context.Context, epoch uint64, voters []Peer) []toldPeer {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	results := make(chan toldPeer, len(voters))
	for _, p := range voters {
		wg.Go(func() {
			t := toldPeer{peer: p}
			t.err = decodeError(s.client.Call(ctx, mux.At(p.ID, p.Address), methodFenced, fencedRequest{Epoch: epoch}, &t.answer))
			results <- t
		})
	}
	var (
		all   []toldPeer
		heard int
		grace <-chan time.Time
	)
	for len(all) < len(voters) {
		select {
		case t := <-results:
			all = append(all, t)
			if t.err == nil {
				heard++
			}
		case <-grace:
			return all
		}
		// The node that is spoken for is a voter too, and not among these.
		if grace == nil && heard > (len(voters)+1)/2 {
			grace = time.After(tellGrace)
		}
	}
	return all
}
