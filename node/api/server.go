package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// Config is what a [Server] is made of.
type Config struct {
	Backend  Backend      // required
	Metrics  http.Handler // answers GET /metrics; default: 404
	Token    string       // opens what changes the cluster; default: nothing opens it
	MaxWaits int          // requests that may wait at once; default 1024
	Logger   *slog.Logger // default slog.Default()
}

func (c Config) withDefaults() Config {
	if c.Metrics == nil {
		c.Metrics = http.HandlerFunc(notFound)
	}
	if c.MaxWaits == 0 {
		c.MaxWaits = 1024
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Bounds on what one client can hold.
const (
	maxHeader       = 16 << 10
	maxBody         = 64 << 10 // no request needs a body; more than this closes the connection
	readTimeout     = 10 * time.Second
	writeTimeout    = 30 * time.Second // of an answer, once there is one
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 3 * time.Second
)

// Server answers the endpoints of one node. It is safe for concurrent use.
type Server struct {
	cfg      Config
	tokenSum [sha256.Size]byte
	waiting  atomic.Int64 // requests that wait now
}

// New returns a server; it holds nothing until [Server.Run].
func New(cfg Config) *Server {
	cfg = cfg.withDefaults()
	return &Server{cfg: cfg, tokenSum: sha256.Sum256([]byte(cfg.Token))}
}

// Run answers requests that come in on ln until ctx ends, then lets those that
// are being answered finish for a few seconds, and closes ln. It returns nil
// after such an end.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }() // waited for below, on both ways out
	select {
	case err := <-ended:
		return fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	// Those that wait for a commit would wait on: they end now. The others get
	// the time they need, within reason.
	endRequests()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close() // cuts off what is not answered in time
	}
	<-ended
	return nil
}

// Handler returns the endpoints without the bounds on connections that
// [Server.Run] adds.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	read := func(path string, h http.HandlerFunc) { mux.Handle(path, only(h, http.MethodGet, http.MethodHead)) }
	change := func(path string, h http.HandlerFunc) { mux.Handle(path, only(s.authorised(h), http.MethodPost)) }
	read("/livez", s.livez)
	read("/readyz", s.readyz)
	read("/metrics", s.cfg.Metrics.ServeHTTP)
	read("/primary", s.primary)
	read("/replica", s.replica)
	read("/v1/status", s.status)
	read("/v1/databases/{name}/wait", s.wait)
	change("/v1/databases/{name}/verify", s.verify)
	mux.Handle("/v1/databases/{name}/sync", only(http.HandlerFunc(s.sync), http.MethodPost)) // counts as reading
	change("/v1/switchover", s.switchover)
	change("/v1/leave", s.leave)
	change("/v1/remove", s.remove)
	mux.HandleFunc("/", notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// only answers 405 to any other method.
func only(h http.Handler, methods ...string) http.Handler {
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range methods {
			if r.Method == m {
				h.ServeHTTP(w, r)
				return
			}
		}
		w.Header().Set("Allow", allow)
		writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s %s: the method must be %s", r.Method, r.URL.Path, allow))
	})
}

// authorised lets a request through that carries the cluster's token. The
// comparison takes the same time whatever is wrong with it.
func (s *Server) authorised(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
		same := subtle.ConstantTimeCompare(sum[:], s.tokenSum[:]) == 1
		if !same || s.cfg.Token == "" || !strings.EqualFold(scheme, "Bearer") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="lsnode"`)
			writeError(w, http.StatusUnauthorized, fmt.Sprintf("%s: this needs the header Authorization: Bearer TOKEN with the cluster's token", r.URL.Path))
			return
		}
		h(w, r)
	})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, fmt.Sprintf("%s: no such path", r.URL.Path))
}

// writeJSON answers with v. The client's end of the connection may be gone:
// there is nobody left to tell.
func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer can't be written as JSON"}`)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

type errorBody struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, errorBody{Error: text})
}

// codeOf sorts a backend's error.
func codeOf(err error) int {
	switch {
	case errors.Is(err, ErrNoPrimary), errors.Is(err, ErrNotServed):
		return http.StatusServiceUnavailable
	case errors.Is(err, ErrNotPrimary):
		return http.StatusMisdirectedRequest
	case errors.Is(err, ErrLineLost):
		return http.StatusGone
	case errors.Is(err, ErrUnknownDatabase), errors.Is(err, ErrUnknownNode):
		return http.StatusNotFound
	case errors.Is(err, ErrRefused):
		return http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrUnconfirmed):
		return http.StatusGatewayTimeout
	case errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable // the node is stopping, or nobody listens any more
	default:
		return http.StatusInternalServerError
	}
}
