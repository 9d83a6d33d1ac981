package stream

import (
	"encoding/binary"
	"fmt"

	"github.com/lsnode/lsnode/walstream"
)

// MessageKind says what a live message brings.
type MessageKind uint8

// The kinds. Their numbers are part of the wire's format.
const (
	// Whole brings a transaction: Record holds all of it.
	Whole MessageKind = 1
	// Announced says that a transaction too large for a message is in the
	// sender's log: the receiver pulls what follows on Header.Pre up to
	// Header.Post.
	Announced MessageKind = 2
	// Standing says that the sender stands at Header.Post and has had nothing
	// new: so that a lost last message is noticed, and lag known, while idle.
	// Only Database and Post of its header are set.
	Standing MessageKind = 3

	sealedKind MessageKind = 0x80 // any of them, sealed: see seal.go
)

// Message is one message of the live stream.
type Message struct {
	Kind   MessageKind
	Header walstream.Header // without Place, unless Whole
	Record []byte           // the encoded transaction of a Whole message, checked; the receiver may keep it
	Txn    *walstream.Txn   // Record decoded, for a Whole message
}

const messageVersion = 1

// The plain form of a message, all numbers big-endian:
//
//	version 1 | kind 1 | body
//
// The body of Whole is a record of the log, which has a CRC of its own. That of
// the others is a header (walstream.AppendHeader) and a CRC-32C of everything before.

func encodeWhole(b, record []byte) []byte {
	b = append(b, messageVersion, byte(Whole))
	return append(b, record...)
}

func encodeNotice(b []byte, kind MessageKind, h *walstream.Header) []byte {
	start := len(b)
	b = append(b, messageVersion, byte(kind))
	clean := *h
	clean.Place = walstream.Place{} // means nothing to another node
	b = walstream.AppendHeader(b, &clean)
	return binary.BigEndian.AppendUint32(b, crc(b[start:]))
}

// decodeMessage reads a plain message. b must not change afterwards.
func decodeMessage(b []byte) (*Message, error) {
	if len(b) < 2 || len(b) > maxMessage {
		return nil, fmt.Errorf("read message of %d bytes: %w", len(b), walstream.ErrCorrupt)
	}
	if b[0] != messageVersion {
		return nil, fmt.Errorf("read message of version %d: %w", b[0], walstream.ErrVersion)
	}
	m := &Message{Kind: MessageKind(b[1])}
	switch m.Kind {
	case Whole:
		t, err := walstream.Decode(b[2:])
		if err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		if t.Kind == walstream.KindBase {
			return nil, fmt.Errorf("read message: %w: a base record is never shipped", walstream.ErrCorrupt)
		}
		m.Header, m.Record, m.Txn = t.Header, b[2:], t
		return m, nil
	case Announced, Standing:
		h, err := decodeNotice(b)
		if err != nil {
			return nil, fmt.Errorf("read notice: %w", err)
		}
		m.Header = h
		return m, nil
	default:
		return nil, fmt.Errorf("read message of kind %d: %w", b[1], walstream.ErrCorrupt)
	}
}

func decodeNotice(b []byte) (walstream.Header, error) {
	body, sum := b[:max(len(b)-4, 2)], b[max(len(b)-4, 2):]
	if len(sum) != 4 || crc(body) != binary.BigEndian.Uint32(sum) {
		return walstream.Header{}, fmt.Errorf("%w: check sum differs", walstream.ErrCorrupt)
	}
	return walstream.ParseHeader(body[2:])
}
