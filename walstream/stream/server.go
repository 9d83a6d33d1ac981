package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// Log is what the server needs of a node's log; *txlog.Log has it.
type Log interface {
	// Databases names those that the log has.
	Databases() []string
	// First is the position before the oldest transaction kept. Zero: from the start.
	First(db string) walstream.Position
	// Last is the position after the newest transaction. Zero: there is none.
	Last(db string) walstream.Position
	// Durable is the position after the newest transaction that is on disk for good.
	Durable(db string) walstream.Position
	// Records walks over the records of all transactions after a position until
	// the end that the log has then. Errors: txlog.ErrTruncated, txlog.ErrNotOnLine.
	Records(db string, after walstream.Position) iter.Seq2[[]byte, error]
	// Notify returns a channel that is closed at the next append to db.
	Notify(db string) <-chan struct{}
}

// Snapshot is a database at one position, which a peer is repaired from. It
// stays as it is until Close, whatever is written meanwhile.
type Snapshot struct {
	Position  walstream.Position
	Time      time.Time // of the newest commit in it, if known
	PageSize  uint32
	PageCount uint32
	// Sums are the checksums of all its pages.
	Sums Sums
	// ReadPage reads a page into buf, which is as long as the page size.
	ReadPage func(no uint32, buf []byte) error
	// Close releases it. Called once.
	Close func() error
}

// ServerConfig configures a [Server].
type ServerConfig struct {
	// Log is this node's log. Required.
	Log Log
	// Snapshot opens a snapshot of a database for one repair. Its errors reach
	// the peer as text; ErrUnknownDatabase and ErrBusy as such. Required.
	Snapshot func(ctx context.Context, db string) (*Snapshot, error)
	// Stall is how long one frame may take to get through. Default 30s.
	Stall time.Duration
	// PingInterval is how often a follower is asked for a sign of life. One that
	// owes an answer for twice Stall is dropped. Default 5s.
	PingInterval time.Duration
	// MaxRepairs is how many peers are repaired at a time. Default 4.
	MaxRepairs int
	// SnapshotAge is how long a snapshot is held for a peer, which keeps a WAL
	// from restarting; after that the peer goes on with a new one. Each time that
	// happens to it, the next one is held twice as long, so that it comes to an
	// end however fast the database changes. Default 1m.
	SnapshotAge time.Duration
	// Logger gets what went wrong with peers. Default: nothing is logged.
	Logger *slog.Logger
}

func (c ServerConfig) withDefaults() (ServerConfig, error) {
	if c.Stall <= 0 {
		c.Stall = 30 * time.Second
	}
	if c.PingInterval <= 0 {
		c.PingInterval = 5 * time.Second
	}
	if c.MaxRepairs <= 0 {
		c.MaxRepairs = 4
	}
	if c.SnapshotAge <= 0 {
		c.SnapshotAge = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Log == nil || c.Snapshot == nil {
		return c, errors.New("make pull server: log or snapshots missing")
	}
	return c, nil
}

// Server answers the pull requests of other nodes from this node's log and
// databases. It keeps no state between requests.
type Server struct {
	cfg     ServerConfig
	repairs chan struct{} // holds a token for each repair under way
}

// NewServer returns a server; it starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, repairs: make(chan struct{}, cfg.MaxRepairs)}, nil
}

// Serve answers the one request of an accepted connection and closes it. It
// returns when the request is answered, the peer has gone or stalls, or ctx
// ends. An error that the peer was told is returned too.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	l := newLink(conn, s.cfg.Stall)
	err := s.answer(ctx, l)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil || gone(err) {
		return nil
	}
	_ = l.sendNow(frameError, encodeError(err)) // the peer may have gone
	s.cfg.Logger.Debug("pull request failed", "peer", conn.RemoteAddr(), "error", err)
	return fmt.Errorf("serve %s: %w", conn.RemoteAddr(), err)
}

// gone tells whether the peer left between two frames.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

func (s *Server) answer(ctx context.Context, l *link) error {
	if err := greet(l); err != nil {
		return err
	}
	t, payload, err := l.receive(maxControl)
	if err != nil {
		return err
	}
	switch t {
	case frameHeads:
		return s.heads(l)
	case frameSince:
		q, err := decodeSince(payload)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return s.since(ctx, l, q)
	case frameRepair:
		q, err := decodeRepair(payload)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return s.repair(ctx, l, q)
	default:
		return fmt.Errorf("%w: frame of type %d is no request", ErrRefused, t)
	}
}

// greet agrees on the protocol's version.
func greet(l *link) error {
	payload, err := l.expect(frameHello, maxControl)
	if err != nil {
		return err
	}
	from, to, err := decodeHello(payload)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case from > protocolVersion || to < protocolVersion:
		return fmt.Errorf("%w: pull protocol %d to %d, this node speaks %d", walstream.ErrVersion, from, to, protocolVersion)
	}
	return l.sendNow(frameHello, encodeHello(protocolVersion, protocolVersion))
}

func (s *Server) heads(l *link) error {
	for _, db := range s.cfg.Log.Databases() {
		h := Head{Database: db, First: s.cfg.Log.First(db), Last: s.cfg.Log.Last(db), Durable: s.cfg.Log.Durable(db)}
		if err := l.send(frameHead, h.encode()); err != nil {
			return err
		}
	}
	return l.sendNow(frameEnd, nil)
}

// knows tells whether the log has the database.
func (s *Server) knows(db string) error {
	if s.cfg.Log.Last(db).IsZero() {
		return fmt.Errorf("%w: %s", ErrUnknownDatabase, db)
	}
	return nil
}
