package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// ErrChecksum says that the pages received and the caller's do not make up the
// database that the node has: the caller's table or the node's is wrong.
var ErrChecksum = errors.New("checksum of the database differs")

// Repair says what to repair, or to seed.
type Repair struct {
	Database string
	// Have is the table of page checksums of the caller's copy, which must not
	// change before Repair returns. Default: the caller has nothing (seeding).
	Have Sums
	// PageSize is that of the caller's copy. A node with another one sends all of
	// its pages. Default: the caller has nothing.
	PageSize uint32
	// Spool takes the pages. Required. What it holds already isn't asked for again.
	Spool *Spool
	// Progress, if given, is told now and then how far it is. It must not block.
	Progress func(Progress)
}

// Progress says how far a repair is.
type Progress struct {
	Done, Total uint32 // pages compared and received, of all pages
	Received    uint64 // pages received by this call; pages may come more than once
}

// maxBarren is how often in a row a repair is tried again without having
// received anything.
const maxBarren = 3

// Repair makes the caller's copy equal to the node's: it compares checksum
// tables and returns one transaction with just the pages that differ, at the
// node's position. Its Pre is zero, for the caller to fill in; its Pages read
// from the spool, as often as one likes, until the spool is closed. Together
// with the caller's pages they have been checked against the node's checksum.
//
// A connection that breaks, or a snapshot that the node no longer holds, is
// followed by another attempt as long as pages arrive; then ends in an error.
// The spool keeps what was received: call it again, with any node. Errors:
// [ErrUnknownDatabase], [ErrBusy], [ErrPeer], [ErrChecksum] (the tables lie:
// scan the copy, or ask another node), a context's cause.
func (c *Client) Repair(ctx context.Context, q Repair) (*walstream.Txn, error) {
	if q.Spool == nil || q.Spool.database != q.Database {
		return nil, fmt.Errorf("repair %s: no spool for it", q.Database)
	}
	if q.Have == nil {
		q.Have = noSums{}
	}
	a := &acceptor{q: q}
	request := repairRequest{database: q.Database}
	for barren := 0; ; barren++ {
		before := a.received
		err := c.request(ctx, frameRepair, request.encode(), a.run)
		if err == nil {
			return a.txn(), nil
		}
		if a.received > before {
			barren = 0
		}
		if errors.Is(err, ErrExpired) && request.expired < math.MaxUint8 {
			request.expired++
		}
		if ctx.Err() != nil || !again(err) || barren >= maxBarren {
			return nil, fmt.Errorf("repair %s: %w", q.Database, err)
		}
		c.cfg.Logger.Info("repair goes on after an interruption", "database", q.Database,
			"received", a.received, "error", err)
		pause(ctx, 50*time.Millisecond<<barren)
	}
}

// again tells whether another attempt may do better.
func again(err error) bool {
	var remote *RemoteError
	if errors.As(err, &remote) {
		return errors.Is(err, ErrExpired)
	}
	for _, final := range []error{ErrChecksum, ErrProtocol, ErrLocal, walstream.ErrVersion} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

// ErrLocal says that the spool could not be written.
var ErrLocal = errors.New("spool fails")

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// acceptor is the client's side of repairs, over one connection after another.
type acceptor struct {
	q        Repair
	received uint64

	// Of the attempt under way:
	l      *link
	header walstream.Header // the node's database
	own    Sums             // the caller's, if its page size is the node's
	have   overlay          // what the caller and the spool have
	buf    []byte           // one page
	last   uint32           // the page received last
}

// run makes one attempt.
func (a *acceptor) run(l *link) error {
	a.l = l
	payload, err := l.expect(frameSnapshot, maxControl)
	if err != nil {
		return err
	}
	if a.header, err = walstream.ParseHeader(payload); err != nil {
		return err
	}
	if err := a.begin(); err != nil {
		return err
	}
	ranges := rangeCount(a.header.PageCount)
	for first := uint32(0); first < ranges; {
		n := min(windowRanges, ranges-first)
		if err := a.window(first, int(n)); err != nil {
			return err
		}
		first += n
		a.report(rangeLast(first-1, a.header.PageCount))
	}
	if _, err := l.expect(frameEnd, maxControl); err != nil {
		return err
	}
	return a.verify()
}

// begin checks the node's header and makes ready for its pages.
func (a *acceptor) begin() error {
	h := &a.header
	if h.Database != a.q.Database || !sqlitefile.ValidPageSize(h.PageSize) || h.PageCount > pagesum.MaxPages || h.Post.IsZero() {
		return fmt.Errorf("%w: snapshot of %q, %d pages of %d bytes at %v", ErrProtocol, h.Database, h.PageCount, h.PageSize, h.Post)
	}
	if a.q.Spool.pageSize != h.PageSize {
		if err := a.q.Spool.reset(h.PageSize); err != nil {
			return fmt.Errorf("%w: %w", ErrLocal, err)
		}
	}
	a.own = a.q.Have
	if a.q.PageSize != h.PageSize {
		a.own = noSums{}
	}
	a.have = a.q.Spool.over(a.own, h.PageCount)
	a.buf = make([]byte, h.PageSize)
	a.last = 0
	return nil
}

// window settles n ranges from first on.
func (a *acceptor) window(first uint32, n int) error {
	b := binary.BigEndian.AppendUint32(nil, first)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	for i := range n {
		hash := rangeHash(rangeSums(a.have, first+uint32(i)))
		b = append(b, hash[:]...)
	}
	if err := a.l.sendNow(frameCompare, b); err != nil {
		return err
	}
	payload, err := a.l.expect(frameDiffer, windowRanges/8)
	if err != nil {
		return err
	}
	differ := append(bitmap(nil), payload...)
	if !differ.valid(n) {
		return fmt.Errorf("%w: answer of %d bytes about %d ranges", ErrProtocol, len(differ), n)
	}
	for i := range n {
		if !differ.has(i) {
			continue
		}
		no := first + uint32(i)
		if err := a.l.send(frameSums, appendSums(nil, no, rangeSums(a.have, no))); err != nil {
			return err
		}
	}
	if err := a.l.flush(); err != nil {
		return err
	}
	return a.takePages(rangeLast(first+uint32(n)-1, a.header.PageCount))
}

// takePages receives a window's pages, up to the given number.
func (a *acceptor) takePages(upTo uint32) error {
	for {
		t, payload, err := a.l.receive(maxMessage)
		switch {
		case err != nil:
			return err
		case t == frameSettled:
			return nil
		case t == frameError:
			return decodeError(payload)
		case t != framePages:
			return fmt.Errorf("%w: frame of type %d among pages", ErrProtocol, t)
		}
		a.last, err = decodePages(payload, a.buf, a.last, upTo, a.keep)
		if err != nil {
			return err
		}
		a.report(a.last)
	}
}

func (a *acceptor) keep(no uint32, data []byte) error {
	if isLockByte(no, a.header.PageSize) {
		return fmt.Errorf("%w: the lock-byte page was sent", ErrProtocol)
	}
	if err := a.q.Spool.put(no, data); err != nil {
		return fmt.Errorf("%w: %w", ErrLocal, err)
	}
	a.received++
	return nil
}

func (a *acceptor) report(done uint32) {
	if a.q.Progress != nil {
		a.q.Progress(Progress{Done: done, Total: a.header.PageCount, Received: a.received})
	}
}

// verify checks that what the caller and the spool have is the node's database.
func (a *acceptor) verify() error {
	sum := walstream.ChecksumFlag
	for n := range rangeCount(a.header.PageCount) {
		for _, s := range rangeSums(a.have, n) {
			sum = sum.XOR(s)
		}
	}
	if sum != a.header.Post.Checksum {
		return fmt.Errorf("%w: %v, the node has %v", ErrChecksum, sum, a.header.Post)
	}
	return nil
}

func (a *acceptor) txn() *walstream.Txn {
	h := a.header
	h.Kind = walstream.KindPages
	return &walstream.Txn{Header: h, Pages: a.q.Spool.walk(h.PageCount)}
}
