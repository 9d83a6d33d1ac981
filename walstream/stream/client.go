package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// ClientConfig configures a [Client].
type ClientConfig struct {
	// Dial connects to the node to pull from. Required.
	Dial Dialer
	// Stall is how long one frame may take to get through. It must be longer
	// than the server's PingInterval. Default 30s.
	Stall time.Duration
	// Logger gets what is tried again. Default: nothing is logged.
	Logger *slog.Logger
}

func (c ClientConfig) withDefaults() ClientConfig {
	if c.Stall <= 0 {
		c.Stall = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Client pulls from one node. Each call has a connection of its own; many may
// run at once.
type Client struct{ cfg ClientConfig }

// NewClient returns a client; it doesn't connect. cfg.Dial must be set.
func NewClient(cfg ClientConfig) *Client { return &Client{cfg.withDefaults()} }

// Heads returns where the node's log stands, for all its databases.
func (c *Client) Heads(ctx context.Context) ([]Head, error) {
	var heads []Head
	err := c.request(ctx, frameHeads, nil, func(l *link) error {
		for {
			t, payload, err := l.receive(maxControl)
			switch {
			case err != nil:
				return err
			case t == frameEnd:
				return nil
			case t == frameError:
				return decodeError(payload)
			case t != frameHead || len(heads) == maxHeads:
				return fmt.Errorf("%w: frame of type %d after %d heads", ErrProtocol, t, len(heads))
			}
			h, err := decodeHead(payload)
			if err != nil {
				return err
			}
			heads = append(heads, h)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("ask for positions: %w", err)
	}
	return heads, nil
}

// maxHeads bounds what a peer can make Heads hold.
const maxHeads = 1 << 16

// request connects, agrees on the version, sends one request and lets answer
// take it from there. The connection is closed afterwards, or when ctx ends,
// whose error is then returned.
func (c *Client) request(ctx context.Context, t frameType, payload []byte, answer func(l *link) error) error {
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = exchange(newLink(conn, c.cfg.Stall), t, payload, answer)
	if ctx.Err() != nil && err != nil && err != errStopped { // a walk that was left must not go on
		return context.Cause(ctx)
	}
	return err
}

func exchange(l *link, t frameType, payload []byte, answer func(l *link) error) error {
	// The request goes out with the hello: no round trip for the version alone.
	if err := l.send(frameHello, encodeHello(protocolVersion, protocolVersion)); err != nil {
		return err
	}
	if err := l.sendNow(t, payload); err != nil {
		return err
	}
	hello, err := l.expect(frameHello, maxControl)
	if err != nil {
		return err
	}
	from, to, err := decodeHello(hello)
	if err != nil {
		return err
	}
	if from != protocolVersion || to != protocolVersion {
		return fmt.Errorf("%w: node speaks pull protocol %d, this program %d", walstream.ErrVersion, from, protocolVersion)
	}
	return answer(l)
}

// errStopped ends a walk because its consumer wants no more.
var errStopped = errors.New("stopped")
