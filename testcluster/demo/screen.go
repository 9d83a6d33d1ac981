package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// screen shows what happens, as lines that stay, and below them, on a terminal,
// a table that is drawn anew. Its methods may be called at once.
type screen struct {
	terminal bool
	begun    time.Time

	mu    sync.Mutex
	out   io.Writer // guarded by mu
	drawn []string  // the table as it stands on the terminal; guarded by mu
}

func newScreen(out io.Writer, terminal bool) *screen {
	return &screen{terminal: terminal, begun: time.Now(), out: out}
}

// say shows a line that stays.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf("%6.1fs  ", time.Since(s.begun).Seconds()) + fmt.Sprintf(format, args...)
	if s.terminal {
		line = "\x1b[1m" + line + "\x1b[0m"
	}
	s.writeLocked(append([]string{line}, s.drawn...))
}

// draw replaces the table; nil removes it. Off a terminal it is just printed.
func (s *screen) draw(table []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeLocked(table)
	if s.terminal {
		s.drawn = table
	}
}

// writeLocked writes lines over the table. Who only looks on must not stop the
// demonstration, so errors of the terminal are not looked at.
func (s *screen) writeLocked(lines []string) {
	var b strings.Builder
	if len(s.drawn) > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", len(s.drawn))
	}
	for _, line := range lines {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	io.WriteString(s.out, b.String()) //nolint:errcheck // see above
}
