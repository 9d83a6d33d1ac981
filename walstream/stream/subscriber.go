package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lsnode/lsnode/walstream"
)

// Dialer returns a new connection to a node, authenticated already. It gives up
// when ctx ends.
type Dialer func(ctx context.Context) (net.Conn, error)

// ErrLost says that the connection to the message broker ended.
var ErrLost = errors.New("live stream lost")

// SubscriberConfig configures a [Subscriber].
type SubscriberConfig struct {
	// Cluster is the cluster's ID. Required.
	Cluster string
	// Dial connects to the broker of a node. Required, unless URL is given.
	Dial Dialer
	// URL is a NATS server of somebody else, as in [ExternalConfig]. Default: Dial.
	URL string
	// Sealer opens messages. Required with URL, not used otherwise.
	Sealer *Sealer
	// Handle gets each message, in order, one at a time. While it runs, messages
	// wait up to Pending; it should pass them on to workers of each database. An
	// error ends Run, which returns it. Required.
	Handle func(ctx context.Context, m *Message) error
	// Ready, if given, is called once the broker has taken the subscription: what
	// is published from then on arrives. Pull what came before after that.
	Ready func()
	// Pending is how many bytes wait for Handle before messages are dropped.
	// Default 64 MiB.
	Pending int
	// Timeout bounds connecting and subscribing. Default 5s.
	Timeout time.Duration
	// PingInterval is how often an idle broker is asked for a sign of life; two
	// missing answers end Run. Default 2s.
	PingInterval time.Duration
	// Logger gets what was dropped and why. Default: nothing is logged.
	Logger *slog.Logger
}

func (c SubscriberConfig) withDefaults() (SubscriberConfig, error) {
	if c.Pending <= 0 {
		c.Pending = 64 << 20
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.PingInterval <= 0 {
		c.PingInterval = 2 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case !validCluster(c.Cluster):
		return c, fmt.Errorf("cluster ID %q: want letters, digits, - and _", c.Cluster)
	case c.Handle == nil:
		return c, errors.New("no handler")
	case (c.Dial == nil) == (c.URL == ""):
		return c, errors.New("want a dialer or a URL")
	case c.URL != "" && (c.Sealer == nil || c.Sealer.cluster != c.Cluster):
		return c, errors.New("no key of this cluster to open messages with")
	}
	return c, nil
}

// Subscriber receives the live stream of one broker.
type Subscriber struct {
	cfg              SubscriberConfig
	refused, dropped atomic.Uint64
}

// NewSubscriber checks cfg. It doesn't connect.
func NewSubscriber(cfg SubscriberConfig) (*Subscriber, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make subscriber: %w", err)
	}
	return &Subscriber{cfg: cfg}, nil
}

// Refused returns how many messages were damaged, did not open or were not ours.
func (s *Subscriber) Refused() uint64 { return s.refused.Load() }

// Dropped returns how many messages were dropped because Handle did not keep up.
// What was dropped shows as a gap.
func (s *Subscriber) Dropped() uint64 { return s.dropped.Load() }

// Run connects, subscribes, and hands messages to Handle until ctx ends (it
// returns nil), Handle fails (its error), or the connection can't be made or is
// lost ([ErrLost]). It doesn't reconnect: call it again, and then pull what was
// missed. No handler runs after it returned. One Run at a time.
func (s *Subscriber) Run(ctx context.Context) error {
	nc, err := s.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("connect to live stream: %w: %w", ErrLost, err)
	}
	defer nc.Close()
	err = s.receive(ctx, nc)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// connect connects once; the connection isn't made again when it is lost, since
// only the caller knows who is primary then.
func (s *Subscriber) connect(ctx context.Context) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("lsnode subscriber"), nats.NoReconnect(), nats.Timeout(s.cfg.Timeout),
		nats.PingInterval(s.cfg.PingInterval), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // NextMsg and LastError tell
	}
	url := s.cfg.URL
	if url == "" {
		url = "nats://node" // never resolved: the dialer decides
		opts = append(opts, nats.SetCustomDialer(natsDialer{ctx, s.cfg.Timeout, s.cfg.Dial}))
	}
	return nats.Connect(url, opts...)
}

// receive subscribes, and hands on messages until the connection is lost.
func (s *Subscriber) receive(ctx context.Context, nc *nats.Conn) error {
	sub, err := nc.SubscribeSync(subjectAll(s.cfg.Cluster))
	if err != nil {
		return fmt.Errorf("subscribe: %w: %w", ErrLost, err)
	}
	if err := sub.SetPendingLimits(-1, s.cfg.Pending); err != nil {
		return fmt.Errorf("subscribe: %w: %w", ErrLost, err)
	}
	if err := nc.FlushTimeout(s.cfg.Timeout); err != nil {
		return fmt.Errorf("subscribe: %w: %w", ErrLost, err)
	}
	if s.cfg.Ready != nil {
		s.cfg.Ready()
	}
	counted := 0
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		counted = s.countDropped(sub, counted)
		switch {
		case errors.Is(err, nats.ErrSlowConsumer):
			continue
		case err != nil:
			return fmt.Errorf("receive live stream: %w: %w", ErrLost, errors.Join(err, nc.LastError()))
		}
		m, err := s.read(msg)
		if err != nil {
			// On a server of somebody else anybody may send us anything, so the log
			// has the 1st, 2nd, 4th, 8th … only.
			if n := s.refused.Add(1); n&(n-1) == 0 {
				s.cfg.Logger.Warn("refused a live message", "subject", msg.Subject, "refused", n, "error", err)
			}
			continue
		}
		if err := s.cfg.Handle(ctx, m); err != nil {
			return err
		}
	}
}

// countDropped adds what was dropped since the last call, when it was counted.
// (That NextMsg returns ErrSlowConsumer is not enough: the client forgets it as
// soon as a message fits again.)
func (s *Subscriber) countDropped(sub *nats.Subscription, counted int) int {
	n, err := sub.Dropped()
	if err != nil || n == counted {
		return counted // an error means that the subscription has ended
	}
	s.dropped.Add(uint64(n - counted))
	s.cfg.Logger.Warn("live stream is faster than this node", "dropped", n-counted)
	return n
}

// read opens and decodes a message.
func (s *Subscriber) read(msg *nats.Msg) (*Message, error) {
	db, err := databaseOf(s.cfg.Cluster, msg.Subject)
	if err != nil {
		return nil, err
	}
	if s.cfg.Sealer != nil && s.cfg.URL != "" {
		return s.cfg.Sealer.open(msg.Data, db)
	}
	m, err := decodeMessage(msg.Data)
	if err != nil {
		return nil, err
	}
	if m.Header.Database != db {
		return nil, fmt.Errorf("read message: %w: it is of database %s", walstream.ErrCorrupt, m.Header.Database)
	}
	return m, nil
}

// natsDialer lets the NATS client use a Dialer for its one connection.
type natsDialer struct {
	ctx     context.Context
	timeout time.Duration
	dial    Dialer
}

// Dial implements nats.CustomDialer.
func (d natsDialer) Dial(_, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	return d.dial(ctx)
}
