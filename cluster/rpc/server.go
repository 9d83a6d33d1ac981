package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// maxUnderWay bounds the requests of one connection that are being worked
	// on. Beyond it the connection is not read.
	maxUnderWay = 256
	// maxTimeout bounds how long a request is worked on.
	maxTimeout = time.Minute
	// writeTimeout bounds a write; the connection is given up after it.
	writeTimeout = 5 * time.Second
)

// Method answers a request. from is the ID of the node that asks, proved by its
// certificate. ctx ends when the caller waits no longer, its connection is lost,
// or the server's ctx ends. The result is marshalled as JSON. It is called
// concurrently.
type Method func(ctx context.Context, from string, body []byte) (any, error)

// Server answers requests. Its methods are safe for concurrent use.
type Server struct {
	logger *slog.Logger

	mu      sync.RWMutex
	methods map[string]Method // guarded by mu
}

// NewServer returns a server without methods.
func NewServer(logger *slog.Logger) *Server {
	return &Server{logger: logger, methods: make(map[string]Method)}
}

// Handle sets the method of a name from now on; nil takes it away.
func (s *Server) Handle(name string, m Method) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m == nil {
		delete(s.methods, name)
		return
	}
	s.methods[name] = m
}

// Serve answers the requests that come over conn, whose other end is the node
// from, until the connection ends or ctx does. It closes conn, and returns when
// all methods that it has called have returned.
func (s *Server) Serve(ctx context.Context, conn net.Conn, from string) {
	ctx, cancel := context.WithCancel(ctx)
	c := &served{server: s, conn: conn, from: from, slots: make(chan struct{}, maxUnderWay)}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })

	err := c.readLoop(ctx)
	cancel()
	stop()
	_ = conn.Close()
	c.wg.Wait()
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		s.logger.Debug("end connection", "protocol", Protocol, "from", from, "error", err)
	}
}

// served is one accepted connection.
type served struct {
	server *Server
	conn   net.Conn
	from   string
	slots  chan struct{} // one for each request being worked on
	wg     sync.WaitGroup

	writeMu sync.Mutex // held during a write
}

func (c *served) readLoop(ctx context.Context) error {
	r := bufio.NewReader(c.conn)
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		if f.kind != kindRequest {
			return fmt.Errorf("%w: kind %d sent to a server", ErrFrame, f.kind)
		}
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		c.wg.Go(func() {
			defer func() { <-c.slots }()
			c.answer(ctx, f)
		})
	}
}

// answer works on one request and sends the response.
func (c *served) answer(ctx context.Context, request frame) {
	timeout := request.timeout
	if timeout <= 0 || timeout > maxTimeout {
		timeout = maxTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	response := frame{kind: kindResponse, call: request.call}
	body, err := c.call(ctx, request)
	if err == nil && headSize+len(body) > MaxFrame {
		err = fmt.Errorf("answer %s: %w", request.name, ErrTooLarge)
	}
	if err != nil {
		response.kind = kindError
		response.name, body = errorText(err)
	}
	response.body = body
	data, err := appendFrame(nil, response)
	if err == nil {
		err = c.write(data)
	}
	if err != nil {
		_ = c.conn.Close() // a response is missing: let the caller know at once
	}
}

// call runs the method. One that panics must not take the whole node down with
// it: the primary's data path runs in the same process.
func (c *served) call(ctx context.Context, request frame) (body []byte, err error) {
	c.server.mu.RLock()
	method := c.server.methods[request.name]
	c.server.mu.RUnlock()
	if method == nil {
		return nil, Errorf(CodeUnknownMethod, "no method %q", request.name)
	}
	defer func() {
		if p := recover(); p != nil {
			c.server.logger.Error("method panicked", "method", request.name, "panic", p, "stack", string(debug.Stack()))
			err = Errorf(CodeInternal, "method %s panicked: %v", request.name, p)
		}
	}()
	result, err := method(ctx, c.from, request.body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

func (c *served) write(data []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(data)
	return err
}

// errorText returns the code and the text with which an error travels.
func errorText(err error) (code string, text []byte) {
	code = CodeInternal
	var e *Error
	if errors.As(err, &e) && e.Code != "" && len(e.Code) <= maxName {
		code = e.Code
	}
	text = []byte(err.Error())
	return code, text[:min(len(text), 64<<10)]
}

// Decode is the first line of most methods: it unmarshals a request, and its
// error has the code [CodeBadRequest].
func Decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return Errorf(CodeBadRequest, "decode request: %v", err)
	}
	return nil
}
