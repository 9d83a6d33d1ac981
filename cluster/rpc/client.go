package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"
)

// Dialer makes connections to peers: a mux's Dial for [Protocol], say. The
// address is what was given to [Client.Call].
type Dialer func(ctx context.Context, address string) (net.Conn, error)

// Client calls methods of other nodes. Its methods are safe for concurrent use.
type Client struct {
	dial Dialer

	mu     sync.Mutex
	peers  map[string]*peer // by address; guarded by mu
	closed bool             // guarded by mu
}

// NewClient returns a client that connects when it is first used.
func NewClient(dial Dialer) *Client {
	return &Client{dial: dial, peers: make(map[string]*peer)}
}

// Call sends a request to the node at address, with the JSON of in as its body,
// and unmarshals the response into out, unless that is nil. It returns when ctx
// ends at the latest; ctx should have a deadline, since a method may hold its
// answer back. The errors are told apart in the package's comment; an error that
// wraps ctx's leaves open whether the peer has got the request.
func (c *Client) Call(ctx context.Context, address, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	body, err = c.roundTrip(ctx, address, method, body)
	if err != nil {
		return fmt.Errorf("call %s at %s: %w", method, address, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("call %s at %s: decode response: %w", method, address, err)
	}
	return nil
}

func (c *Client) roundTrip(ctx context.Context, address, method string, body []byte) ([]byte, error) {
	request := frame{kind: kindRequest, name: method, body: body}
	if deadline, ok := ctx.Deadline(); ok {
		request.timeout = time.Until(deadline)
	}
	peer, err := c.peer(address)
	if err != nil {
		return nil, err
	}
	link, err := peer.connected(ctx)
	if err != nil {
		return nil, err
	}
	response, err := link.call(ctx, request)
	if err != nil {
		return nil, err
	}
	if response.kind == kindError {
		return nil, &Error{Code: response.name, Message: string(response.body)}
	}
	return response.body, nil
}

// Forget closes the connection to an address that is not used any more.
func (c *Client) Forget(address string) {
	c.mu.Lock()
	p := c.peers[address]
	delete(c.peers, address)
	c.mu.Unlock()
	if p != nil {
		p.close()
	}
}

// Close ends all calls and waits for the client's goroutines.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	peers := c.peers
	c.peers = nil
	c.mu.Unlock()
	for _, p := range peers {
		p.close()
	}
	return nil
}

func (c *Client) peer(address string) (*peer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	p := c.peers[address]
	if p == nil {
		p = newPeer(address, c.dial)
		c.peers[address] = p
	}
	return p, nil
}
