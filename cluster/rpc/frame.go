package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Protocol is the ALPN of this package's connections.
const Protocol = "lsnode-rpc/1"

// MaxFrame bounds a frame, and so a request or response, in bytes.
const MaxFrame = 4 << 20

// ErrTooLarge is wrapped when a request or response does not fit in a frame.
var ErrTooLarge = errors.New("message is larger than 4 MiB")

// ErrFrame is wrapped when a peer sends what is no frame of this version.
var ErrFrame = errors.New("malformed frame")

const (
	version    = 1
	lengthSize = 4
	headSize   = 15 // after the length: version, kind, call, timeout, length of the name
	maxName    = math.MaxUint8
	// firstRead is how much is allocated on the word of a length alone.
	firstRead = 64 << 10
)

type kind byte

const (
	kindRequest  kind = 1
	kindResponse kind = 2
	kindError    kind = 3
)

// frame is one message.
type frame struct {
	kind    kind
	call    uint64
	timeout time.Duration // of a request; to the millisecond
	name    string        // method or error code
	body    []byte
}

// appendFrame encodes f.
func appendFrame(b []byte, f frame) ([]byte, error) {
	length := headSize + len(f.name) + len(f.body)
	if length > MaxFrame {
		return b, fmt.Errorf("encode %q: %w: %d bytes", f.name, ErrTooLarge, length)
	}
	if len(f.name) > maxName {
		return b, fmt.Errorf("encode %.32q…: name has more than %d bytes", f.name, maxName)
	}
	// Rounded up: a caller with a little time left is not one without.
	ms := (f.timeout + time.Millisecond - 1).Milliseconds()
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	b = append(b, version, byte(f.kind))
	b = binary.BigEndian.AppendUint64(b, f.call)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(ms, 0), math.MaxUint32)))
	b = append(b, byte(len(f.name)))
	b = append(b, f.name...)
	return append(b, f.body...), nil
}

// readFrame reads one frame. io.EOF means that the stream ended between two
// frames; io.ErrUnexpectedEOF, within one.
func readFrame(r io.Reader) (frame, error) {
	var prefix [lengthSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return frame{}, err
	}
	length := int(binary.BigEndian.Uint32(prefix[:]))
	if length < headSize || length > MaxFrame {
		return frame{}, fmt.Errorf("%w: length %d", ErrFrame, length)
	}
	data, err := readBody(r, length)
	if err != nil {
		return frame{}, err
	}
	return parseFrame(data)
}

// readBody reads n bytes, and allocates in proportion to what has arrived.
func readBody(r io.Reader, n int) ([]byte, error) {
	data := make([]byte, min(n, firstRead))
	for read := 0; ; {
		m, err := io.ReadFull(r, data[read:])
		read += m
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || read == n {
			return data, err
		}
		grown := make([]byte, min(n, 4*len(data)))
		copy(grown, data)
		data = grown
	}
}

// parseFrame decodes what follows the length.
func parseFrame(b []byte) (frame, error) {
	if len(b) < headSize {
		return frame{}, fmt.Errorf("%w: %d bytes", ErrFrame, len(b))
	}
	if b[0] != version {
		return frame{}, fmt.Errorf("%w: version %d, this program knows %d", ErrFrame, b[0], version)
	}
	f := frame{
		kind:    kind(b[1]),
		call:    binary.BigEndian.Uint64(b[2:]),
		timeout: time.Duration(binary.BigEndian.Uint32(b[10:])) * time.Millisecond,
	}
	if f.kind < kindRequest || f.kind > kindError {
		return frame{}, fmt.Errorf("%w: kind %d", ErrFrame, f.kind)
	}
	n := int(b[14])
	if len(b) < headSize+n {
		return frame{}, fmt.Errorf("%w: name goes beyond the end", ErrFrame)
	}
	f.name, f.body = string(b[headSize:headSize+n]), b[headSize+n:]
	return f, nil
}
