package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// BrokerConfig configures a [Broker].
type BrokerConfig struct {
	// MaxPending is how much is kept for one follower that does not keep up,
	// in bytes. Above three quarters of it messages are dropped for that
	// follower; it sees a gap. Default 32 MiB.
	MaxPending int64
	// StallTimeout is how long one write to a follower may take before its
	// connection is closed. Default 5s.
	StallTimeout time.Duration
	// PingInterval is how often an idle follower is asked for a sign of life;
	// two missing answers close its connection. Default 2s.
	PingInterval time.Duration
	// Logger gets what the broker has to say. Default: nothing is logged.
	Logger *slog.Logger
}

func (c BrokerConfig) withDefaults() BrokerConfig {
	if c.MaxPending <= 0 {
		c.MaxPending = 32 << 20
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = 5 * time.Second
	}
	if c.PingInterval <= 0 {
		c.PingInterval = 2 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// ErrClosed says that a broker, publisher or client was closed.
var ErrClosed = errors.New("closed")

// Broker is a NATS server inside this process. It opens no port: connections
// come in through [Broker.ServeConn], already authenticated, and through
// [Broker.Publisher]. It keeps no message. All methods may be called at once.
type Broker struct {
	cfg BrokerConfig
	srv *server.Server

	ctx    context.Context // ends with Close, and with it all connections
	cancel context.CancelCauseFunc

	mu     sync.Mutex     // orders ServeConn's start before or after Close
	served sync.WaitGroup // the ServeConn calls under way
}

// NewBroker starts a NATS server that listens nowhere. It runs until Close.
func NewBroker(cfg BrokerConfig) (*Broker, error) {
	cfg = cfg.withDefaults()
	srv, err := server.NewServer(&server.Options{
		ServerName:          "lsnode",
		DontListen:          true,
		NoSigs:              true,
		NoLog:               true, // SetLogger below replaces it
		NoSystemAccount:     true, // no statistics messages, no account timers
		NoHeaderSupport:     true,
		MaxPayload:          maxMessage,
		MaxPending:          cfg.MaxPending,
		WriteDeadline:       cfg.StallTimeout,
		PingInterval:        cfg.PingInterval,
		MaxPingsOut:         2,
		MaxClosedClients:    16,
		NoFastProducerStall: true, // a slow follower must not slow the publisher
	})
	if err != nil {
		return nil, fmt.Errorf("make message broker: %w", err)
	}
	srv.SetLoggerV2(&brokerLog{cfg.Logger}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		srv.Shutdown()
		return nil, errors.New("start message broker: not ready after 10s")
	}
	b := &Broker{cfg: cfg, srv: srv}
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	return b, nil
}

// ServeConn serves one follower's connection until it ends, the broker is
// closed or ctx ends, and closes it. The error says why it ended; nil if the
// follower went by itself. Call it in a goroutine of the connection.
func (b *Broker) ServeConn(ctx context.Context, conn net.Conn) error {
	if !b.enter() {
		return errors.Join(fmt.Errorf("serve follower: broker: %w", ErrClosed), conn.Close())
	}
	defer b.served.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(b.ctx, func() { cancel(context.Cause(b.ctx)) })
	defer stop()
	inner, err := b.srv.InProcessConn()
	if err != nil {
		return errors.Join(fmt.Errorf("serve follower: %w", err), conn.Close())
	}
	if err := relay(ctx, conn, inner, b.cfg.StallTimeout); err != nil {
		return fmt.Errorf("serve follower %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}

// Slow returns how many connections were dropped because more than MaxPending
// waited for them, or a write took longer than the server allows.
func (b *Broker) Slow() int64 { return b.srv.NumSlowConsumers() }

// Close ends all connections and the server, and waits for both: for a moment,
// or for as long as a connection takes to close. A second Close does nothing.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.cancel(ErrClosed)
	b.mu.Unlock()
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
	b.served.Wait()
	return nil
}

func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return false
	}
	b.served.Add(1)
	return true
}

// brokerLog passes what the NATS server logs on to slog. Its notices are
// about its own start and stop, so they count as details here.
type brokerLog struct{ to *slog.Logger }

func (l *brokerLog) log(level slog.Level, format string, v []any) {
	if l.to.Enabled(context.Background(), level) {
		l.to.Log(context.Background(), level, "message broker: "+fmt.Sprintf(format, v...))
	}
}

// Noticef implements server.Logger.
func (l *brokerLog) Noticef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }

// Warnf implements server.Logger.
func (l *brokerLog) Warnf(format string, v ...any) { l.log(slog.LevelWarn, format, v) }

// Fatalf implements server.Logger.
func (l *brokerLog) Fatalf(format string, v ...any) { l.log(slog.LevelError, format, v) }

// Errorf implements server.Logger.
func (l *brokerLog) Errorf(format string, v ...any) { l.log(slog.LevelWarn, format, v) }

// Debugf implements server.Logger.
func (l *brokerLog) Debugf(format string, v ...any) { l.log(slog.LevelDebug, format, v) }

// Tracef implements server.Logger.
func (l *brokerLog) Tracef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }
