package consensus

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// quiet is how long a line of Raft's is not repeated: it writes one for each
// failed heartbeat.
const quiet = 10 * time.Second

// logSink passes Raft's log lines on to slog.
type logSink struct {
	logger *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // when a line was last passed on; guarded by mu
}

// newLogger returns a logger for Raft. What it calls an error is a failed
// attempt that it repeats, and the role changes that it reports are not those
// that people care about, so everything is one level down.
func newLogger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard})
	l.RegisterSink(&logSink{logger: to.With("part", "raft"), last: make(map[string]time.Time)})
	return l
}

// Accept implements [hclog.SinkAdapter].
func (s *logSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		to = slog.LevelWarn
	case hclog.Warn:
		to = slog.LevelInfo
	}
	ctx := context.Background()
	if !s.logger.Enabled(ctx, to) || to > slog.LevelDebug && s.isRepeated(msg, args) {
		return
	}
	for i := range args {
		if text, ok := args[i].(fmt.Stringer); ok { // Raft's own struct types
			args[i] = text.String()
		}
	}
	s.logger.Log(ctx, to, msg, args...)
}

// isRepeated tells whether the same line, about the same peer, was passed on
// just now.
func (s *logSink) isRepeated(msg string, args []any) bool {
	key := msg
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "id" {
			key += fmt.Sprint(" ", args[i+1])
		}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last[key]) < quiet {
		return true
	}
	if len(s.last) > 1000 { // peers come and go
		clear(s.last)
	}
	s.last[key] = now
	return false
}
