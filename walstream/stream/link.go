package stream

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

const (
	frameHead9  = 9 // length 4, CRC 4, type 1
	linkBuffer  = 64 << 10
	maxControl  = 4 << 10  // what a server takes before it knows what is asked for
	frameTarget = 64 << 10 // of pages: what is lost when a connection breaks
)

// link sends and receives the frames of the pull protocol:
//
//	length of the payload 4 | CRC-32C of type and payload 4 | type 1 | payload
//
// One goroutine may send while another receives. A frame that doesn't get
// through within the stall time is an error.
type link struct {
	conn  net.Conn
	stall time.Duration
	r     *bufio.Reader
	w     *bufio.Writer
	in    []byte // the payload received last; grows to the longest frame, at most maxMessage
}

func newLink(conn net.Conn, stall time.Duration) *link {
	return &link{conn: conn, stall: stall,
		r: bufio.NewReaderSize(conn, linkBuffer), w: bufio.NewWriterSize(conn, linkBuffer)}
}

// send buffers one frame; flush sends what is buffered.
func (l *link) send(t frameType, payload []byte) error {
	if len(payload) > maxMessage {
		return fmt.Errorf("send frame of %d bytes: %w", len(payload), ErrTooLarge)
	}
	var head [frameHead9]byte
	head[8] = byte(t)
	sum := crc32.Update(crc(head[8:]), crc32.MakeTable(crc32.Castagnoli), payload)
	binary.BigEndian.PutUint32(head[:], uint32(len(payload)))
	binary.BigEndian.PutUint32(head[4:], sum)
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.stall)); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	if _, err := l.w.Write(head[:]); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	if _, err := l.w.Write(payload); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

func (l *link) flush() error {
	if l.w.Buffered() == 0 {
		return nil
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.stall)); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	if err := l.w.Flush(); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// sendNow sends one frame and what was buffered before it.
func (l *link) sendNow(t frameType, payload []byte) error {
	if err := l.send(t, payload); err != nil {
		return err
	}
	return l.flush()
}

// receive returns the next frame, of at most limit bytes. The payload is valid
// until the next call. The connection's end between two frames is io.EOF;
// within one it is io.ErrUnexpectedEOF.
func (l *link) receive(limit int) (frameType, []byte, error) {
	if err := l.conn.SetReadDeadline(time.Now().Add(l.stall)); err != nil {
		return 0, nil, fmt.Errorf("receive frame: %w", err)
	}
	return l.receiveWithin(limit)
}

// receiveWithin is receive under the deadline that is set already.
func (l *link) receiveWithin(limit int) (frameType, []byte, error) {
	var head [frameHead9]byte
	if _, err := io.ReadFull(l.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("receive frame: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(min(limit, maxMessage)) {
		return 0, nil, fmt.Errorf("receive frame of %d bytes: %w: at most %d", n, walstream.ErrCorrupt, limit)
	}
	if cap(l.in) < int(n) {
		l.in = make([]byte, n)
	}
	l.in = l.in[:n]
	if _, err := io.ReadFull(l.r, l.in); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, fmt.Errorf("receive frame: %w", err)
	}
	sum := crc32.Update(crc(head[8:]), crc32.MakeTable(crc32.Castagnoli), l.in)
	if sum != binary.BigEndian.Uint32(head[4:]) {
		return 0, nil, fmt.Errorf("receive frame: %w: check sum differs", walstream.ErrCorrupt)
	}
	return frameType(head[8]), l.in, nil
}

// expect receives a frame that must be of one type. The peer's error frame
// becomes its error.
func (l *link) expect(want frameType, limit int) ([]byte, error) {
	t, payload, err := l.receive(limit)
	switch {
	case err != nil:
		return nil, err
	case t == frameError:
		return nil, decodeError(payload)
	case t != want:
		return nil, fmt.Errorf("%w: frame of type %d, expected %d", ErrProtocol, t, want)
	}
	return payload, nil
}
