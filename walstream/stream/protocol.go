package stream

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// The pull protocol runs over one connection for each request. Both sides send
// frames (see link); the client begins:
//
//	client                              server
//	hello  "lsnode pull", versions  ─▶
//	                                ◀─  hello  version
//	heads                           ─▶
//	                                ◀─  head … (one for each database), end
//
//	since  database, position, …    ─▶
//	                                ◀─  record …, end (following: ping …, never an end)
//	pong                            ─▶
//
//	repair database, expired        ─▶
//	                                ◀─  snapshot  position and size
//	compare  hashes of ranges       ─▶       ┐
//	                                ◀─  differ    │ for each window
//	sums   of ranges that differ    ─▶       │ of ranges
//	                                ◀─  pages …, settled ┘
//	                                ◀─  end
//
// Instead of any of its frames the server may send error, and closes.
type frameType uint8

const (
	frameHello    frameType = 1
	frameError    frameType = 2
	frameEnd      frameType = 3
	framePing     frameType = 4
	framePong     frameType = 5
	frameSince    frameType = 10
	frameRecord   frameType = 11
	frameHeads    frameType = 20
	frameHead     frameType = 21
	frameRepair   frameType = 30
	frameSnapshot frameType = 31
	frameCompare  frameType = 32
	frameDiffer   frameType = 33
	frameSums     frameType = 34
	framePages    frameType = 35
	frameSettled  frameType = 36
)

const (
	protocolName    = "lsnode pull"
	protocolVersion = 1
)

// The ways in which a node answers that it can't serve a request, beside
// [txlog.ErrTruncated], [txlog.ErrNotOnLine] and [walstream.ErrVersion].
var (
	// ErrUnknownDatabase: the node does not have it.
	ErrUnknownDatabase = errors.New("unknown database")
	// ErrBusy: the node repairs as many others as it may. Try later, or another.
	ErrBusy = errors.New("node is busy")
	// ErrExpired: a snapshot was held for too long. What was received counts; the
	// client goes on by itself.
	ErrExpired = errors.New("snapshot expired")
	// ErrRefused: the node did not understand the request.
	ErrRefused = errors.New("request refused")
	// ErrPeer: the node failed for a reason of its own, told as text.
	ErrPeer = errors.New("node failed")
	// ErrProtocol: the peer sent what it may not.
	ErrProtocol = errors.New("protocol violated")
)

// errorCode is an error on the wire.
type errorCode uint16

const (
	codePeer      errorCode = 1
	codeUnknown   errorCode = 2
	codeTruncated errorCode = 3
	codeNotOnLine errorCode = 4
	codeVersion   errorCode = 5
	codeBusy      errorCode = 6
	codeExpired   errorCode = 7
	codeRefused   errorCode = 8
)

const maxErrorText = 512

// codes pairs each code with what a client's caller can test for.
func codes() map[errorCode]error {
	return map[errorCode]error{
		codePeer: ErrPeer, codeUnknown: ErrUnknownDatabase,
		codeTruncated: txlog.ErrTruncated, codeNotOnLine: txlog.ErrNotOnLine,
		codeVersion: walstream.ErrVersion, codeBusy: ErrBusy, codeExpired: ErrExpired, codeRefused: ErrRefused,
	}
}

// encodeError turns a server's error into the payload of an error frame.
func encodeError(err error) []byte {
	code := codePeer
	for c, sentinel := range codes() {
		if errors.Is(err, sentinel) {
			code = c
			break
		}
	}
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), text...)
}

// decodeError is what an error frame means to the client.
func decodeError(b []byte) error {
	r := &reader{b: b}
	code := errorCode(r.u16())
	if r.err != nil || len(r.b) > maxErrorText {
		return fmt.Errorf("%w: error frame of %d bytes", ErrProtocol, len(b))
	}
	sentinel, ok := codes()[code]
	if !ok {
		sentinel = ErrPeer // of a later version
	}
	return &RemoteError{Text: string(r.b), kind: sentinel}
}

// RemoteError is an error that a peer reported. errors.Is tells its kind.
type RemoteError struct {
	Text string // the peer's words
	kind error
}

// Error returns the peer's words, marked as such.
func (e *RemoteError) Error() string { return fmt.Sprintf("peer says: %q", e.Text) }

// Unwrap returns the sentinel for what went wrong there.
func (e *RemoteError) Unwrap() error { return e.kind }

func encodeHello(from, to uint16) []byte {
	b := append([]byte(nil), protocolName...)
	b = binary.BigEndian.AppendUint16(b, from)
	return binary.BigEndian.AppendUint16(b, to)
}

// decodeHello returns the versions that the client speaks.
func decodeHello(b []byte) (from, to uint16, err error) {
	r := &reader{b: b}
	if name := r.take(len(protocolName)); r.err == nil && string(name) != protocolName {
		return 0, 0, fmt.Errorf("%w: not a hello", ErrProtocol)
	}
	from, to = r.u16(), r.u16()
	return from, to, r.end()
}

// sinceRequest asks for records of the log.
type sinceRequest struct {
	database string
	after    walstream.Position
	until    walstream.Position // zero: the log's end
	follow   bool               // stay, and send what is appended
}

func (q *sinceRequest) encode() []byte {
	b := appendPosition(appendName(nil, q.database), q.after)
	b = appendPosition(b, q.until)
	if q.follow {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeSince(b []byte) (*sinceRequest, error) {
	r := &reader{b: b}
	q := &sinceRequest{database: r.database(), after: r.position(), until: r.position()}
	follow := r.u8()
	q.follow = follow == 1
	if err := r.end(); err != nil {
		return nil, err
	}
	if follow > 1 {
		return nil, fmt.Errorf("%w: flag %d", ErrProtocol, follow)
	}
	return q, nil
}

// repairRequest asks for what differs.
type repairRequest struct {
	database string
	expired  uint8 // how many snapshots have expired for this client in a row
}

func (q *repairRequest) encode() []byte { return append(appendName(nil, q.database), q.expired) }

func decodeRepair(b []byte) (*repairRequest, error) {
	r := &reader{b: b}
	q := &repairRequest{database: r.database(), expired: r.u8()}
	return q, r.end()
}

// Head says where a node's log of one database stands.
type Head struct {
	Database string
	First    walstream.Position // before the oldest transaction it has
	Last     walstream.Position // after the newest
	Durable  walstream.Position // what is on disk for good
}

func (h *Head) encode() []byte {
	b := appendPosition(appendName(nil, h.Database), h.First)
	return appendPosition(appendPosition(b, h.Last), h.Durable)
}

func decodeHead(b []byte) (Head, error) {
	r := &reader{b: b}
	h := Head{Database: r.database(), First: r.position(), Last: r.position(), Durable: r.position()}
	return h, r.end()
}
