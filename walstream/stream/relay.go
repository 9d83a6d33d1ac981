package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const relayBuffer = 64 << 10

// relay copies bytes both ways between a follower's connection and the
// broker's end of it until either ends or ctx does, then closes both and waits.
// The NATS server takes connections from inside the process only as pipes, so
// this is how one that was accepted elsewhere reaches it. A write to a follower
// that stalls blocks the pipe, which blocks the server's writer for that
// follower alone; after the stall timeout the connection is closed. (The server
// has a write deadline too, but its closing the pipe doesn't end a write to the
// follower.)
func relay(ctx context.Context, conn, inner net.Conn, stall time.Duration) error {
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		inner.Close()
	})
	defer stop()
	var in error
	var wg sync.WaitGroup
	wg.Go(func() {
		in = pump(inner, conn, stall)
		conn.Close()
		inner.Close()
	})
	out := pump(conn, inner, stall)
	conn.Close()
	inner.Close()
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(in, out)
}

// pump copies from src to dst. It isn't io.Copy, whose choice of ReadFrom and
// WriteTo and of buffer size would be a matter of the connections' types. The
// end of either side is no error.
func pump(dst, src net.Conn, stall time.Duration) error {
	buf := make([]byte, relayBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			// An error of SetWriteDeadline means a closed connection: Write says it.
			_ = dst.SetWriteDeadline(time.Now().Add(stall))
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return endOfConn(werr)
			}
		}
		if err != nil {
			return endOfConn(err)
		}
	}
}

func endOfConn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
