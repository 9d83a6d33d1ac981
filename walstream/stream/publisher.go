package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/lsnode/lsnode/walstream"
)

// ErrTooLarge says that a record doesn't fit in a message: announce it.
var ErrTooLarge = errors.New("transaction too large for a message")

// MaxRecord is the longest record that Publish takes, in bytes.
const MaxRecord = 512 << 10

// ErrDropped says that a message was not handed to NATS, which is absent or does
// not keep up. It is lost; followers pull what they lack.
var ErrDropped = errors.New("message dropped")

// Publisher publishes the transactions that this node captured. Its methods may
// be called at once; the messages of one database keep the order of the calls.
// None of them waits for a follower, nor, outside the process, for NATS.
type Publisher struct {
	cluster string
	sealer  *Sealer // nil in process
	nc      *nats.Conn
	queue   *sendQueue // nil in process: the pipe to the broker is always drained

	sent, dropped atomic.Uint64
}

// Publisher returns a publisher for a cluster that hands messages to b in the
// process. Close it before b.
func (b *Broker) Publisher(cluster string) (*Publisher, error) {
	if !validCluster(cluster) {
		return nil, fmt.Errorf("make publisher: cluster ID %q: want letters, digits, - and _", cluster)
	}
	nc, err := nats.Connect("", nats.InProcessServer(b.srv), nats.Name("publisher"),
		nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // hand counts what is lost
	if err != nil {
		return nil, fmt.Errorf("connect publisher to message broker: %w", err)
	}
	return &Publisher{cluster: cluster, nc: nc}, nil
}

// ExternalConfig says where a NATS server of somebody else is.
type ExternalConfig struct {
	// URL is nats://[user:password@]host:port or tls://…, several separated by
	// commas. Required.
	URL string
	// Cluster is the cluster's ID. Required.
	Cluster string
	// Sealer seals and opens messages. Required: others may use that server.
	Sealer *Sealer
	// Timeout bounds one attempt to connect and one write. Default 5s.
	Timeout time.Duration
	// Queue is how many bytes wait for a slow server before messages are
	// dropped. Default 16 MiB.
	Queue int
	// Logger gets when the connection is lost and found. Default: nothing is logged.
	Logger *slog.Logger
}

func (c ExternalConfig) withDefaults() (ExternalConfig, error) {
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Queue <= 0 {
		c.Queue = 16 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.URL == "":
		return c, errors.New("no URL")
	case c.Sealer == nil:
		return c, errors.New("no key to seal messages with")
	case !validCluster(c.Cluster) || c.Cluster != c.Sealer.cluster:
		return c, fmt.Errorf("cluster ID %q: not valid, or not the sealer's", c.Cluster)
	}
	return c, nil
}

// ConnectPublisher returns a publisher to a NATS server of somebody else. It
// returns at once even if that server can't be reached: it goes on trying, and
// until then messages are dropped.
func ConnectPublisher(cfg ExternalConfig) (*Publisher, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("connect publisher: %w", err)
	}
	log := cfg.Logger
	nc, err := nats.Connect(cfg.URL,
		nats.Name("lsnode publisher"), nats.Timeout(cfg.Timeout), nats.FlusherTimeout(cfg.Timeout),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond),
		nats.ReconnectBufSize(-1), // a late message is a useless one
		nats.PingInterval(2*time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("lost connection to NATS", "error", err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("connected to NATS again", "url", nc.ConnectedUrlRedacted()) }),
	)
	if err != nil {
		return nil, fmt.Errorf("connect publisher: %w", err)
	}
	p := &Publisher{cluster: cfg.Cluster, sealer: cfg.Sealer, nc: nc}
	p.queue = newSendQueue(cfg.Queue, p.hand)
	return p, nil
}

// Publish sends a transaction whole: record is its encoded form, one record of
// the log. h tells its database and position. The record may be reused on
// return. [ErrTooLarge]: announce it instead. Any other error means that it is
// lost to the live stream, which followers repair by pulling; log it, go on.
func (p *Publisher) Publish(h *walstream.Header, record []byte) error {
	if len(record) > MaxRecord {
		return fmt.Errorf("publish %s of %d bytes: %w", h.Database, len(record), ErrTooLarge)
	}
	return p.send(h, encodeWhole(make([]byte, 0, len(record)+2), record))
}

// Announce says that a large transaction can be pulled. Call it once the
// transaction is in the log from which this node serves.
func (p *Publisher) Announce(h *walstream.Header) error {
	return p.send(h, encodeNotice(nil, Announced, h))
}

// Standing says where this node stands with a database. Call it now and then
// while there is nothing to publish.
func (p *Publisher) Standing(db string, at walstream.Position) error {
	h := &walstream.Header{Database: db, Kind: walstream.KindBase, Time: time.Now(), Post: at}
	return p.send(h, encodeNotice(nil, Standing, h))
}

// Sent returns how many messages were handed to NATS.
func (p *Publisher) Sent() uint64 { return p.sent.Load() }

// Dropped returns how many messages were lost before NATS had them.
func (p *Publisher) Dropped() uint64 { return p.dropped.Load() }

// Close flushes what is on its way for a moment, and ends the connection.
func (p *Publisher) Close() error {
	if p.queue != nil {
		p.queue.close()
	}
	if p.nc.IsConnected() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = p.nc.FlushWithContext(ctx) // what doesn't arrive is pulled
	}
	p.nc.Close()
	return nil
}

// send seals the message if it leaves the process, and hands it on.
func (p *Publisher) send(h *walstream.Header, plain []byte) error {
	if !walstream.ValidName(h.Database) {
		return fmt.Errorf("publish: database name %q is not valid", h.Database)
	}
	subj := subject(p.cluster, h.Database)
	if p.queue == nil {
		return p.hand(subj, plain)
	}
	sealed := p.sealer.seal(make([]byte, 0, len(plain)+128), h.Database, h.Post, plain)
	if !p.queue.put(subj, sealed) {
		p.dropped.Add(1)
		return fmt.Errorf("publish %s: %w: NATS does not keep up", h.Database, ErrDropped)
	}
	return nil
}

func (p *Publisher) hand(subj string, data []byte) error {
	if err := p.nc.Publish(subj, data); err != nil {
		p.dropped.Add(1)
		return fmt.Errorf("publish to %s: %w: %w", subj, ErrDropped, err)
	}
	p.sent.Add(1)
	return nil
}
