package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/secure"
)

// sum is a machine whose state is the concatenation of its commands.
type sum struct{ text string }

func (s *sum) Apply(_ uint64, command []byte) any { s.text += string(command); return nil }
func (s *sum) Snapshot() ([]byte, error)          { return []byte(s.text), nil }
func (s *sum) Restore(data []byte) error          { s.text = string(data); return nil }

// TestRestartFromSnapshot restarts from a snapshot and the log behind it.
func TestRestartFromSnapshot(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	credentials, err := secure.NewCredentials(secure.NewToken(), "a")
	if err != nil {
		t.Fatal(err)
	}
	m, err := mux.Listen(ctx, mux.Config{Listen: "127.0.0.1:0", Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	dir := t.TempDir()
	for i, want := range []string{"ab", "abab", "ababab"} {
		machine := &sum{}
		c, err := Open(Config{Dir: dir, Mux: m, Machine: machine})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := c.Bootstrap(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Lead(ctx); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"a", "b"} {
			if _, err := c.Apply(ctx, []byte(command)); err != nil {
				t.Fatal(err)
			}
			if command == "a" {
				if err := c.raft.Snapshot().Error(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if machine.text != want {
			t.Errorf("start %d: %q, want %q", i, machine.text, want)
		}
	}
}

func TestRestoreIsBounded(t *testing.T) {
	machine := &sum{text: "kept"}
	endless := io.NopCloser(io.LimitReader(zeros{}, maxSnapshot+10))
	if err := (&fsm{machine: machine}).Restore(endless); err == nil || machine.text != "kept" {
		t.Errorf("restore: %v", err)
	}
	broken := errors.New("broken")
	if err := (&fsm{machine: machine}).Restore(io.NopCloser(io.MultiReader(strings.NewReader("x"), failing{broken}))); !errors.Is(err, broken) {
		t.Errorf("restore: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestLogIsQuiet: Raft's complaint about a dead peer is passed on once in a
// while, for each peer.
func TestLogIsQuiet(t *testing.T) {
	var out bytes.Buffer
	logger := newLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	for range 100 {
		logger.Error("failed to heartbeat to", "peer", "b", "error", errors.New("no route"))
		logger.Error("failed to heartbeat to", "peer", raft.ServerAddress("c"), "error", errors.New("no route"))
		logger.Warn("heartbeat timeout reached, starting election")
		logger.Info("pipelining replication")
		logger.Debug("votes", "needed", 2)
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != 3 || !strings.Contains(got[0], "level=WARN") || !strings.Contains(got[2], "level=INFO") {
		t.Errorf("%d lines:\n%s", len(got), out.String())
	}
}

func TestClassify(t *testing.T) {
	for from, want := range map[error]error{
		raft.ErrNotLeader: ErrNotLeader, raft.ErrLeadershipTransferInProgress: ErrNotLeader,
		raft.ErrLeadershipLost: ErrUnknown, raft.ErrRaftShutdown: ErrClosed, raft.ErrAbortedByRestore: ErrUnknown,
	} {
		got := classify(fmt.Errorf("apply: %w", from))
		if !errors.Is(got, want) || want == ErrNotLeader && errors.Is(got, ErrUnknown) {
			t.Errorf("%v becomes %v", from, got)
		}
	}
	if classify(nil) != nil {
		t.Error("no error becomes one")
	}
}

func TestTiming(t *testing.T) {
	for _, given := range []Timing{{}, {Heartbeat: time.Second}, {Heartbeat: 100 * time.Millisecond}, {Heartbeat: time.Second, Election: 2 * time.Second}} {
		got := given.withDefaults()
		if got.Election < got.Heartbeat || got.LeaderLease > got.Heartbeat || got.Commit == 0 || got.Network == 0 {
			t.Errorf("%+v becomes %+v", given, got)
		}
	}
	for _, bad := range []Config{{}, {Dir: "x"}, {Dir: "x", Machine: &sum{}}} {
		if _, err := Open(bad); err == nil {
			t.Errorf("opened with %+v", bad)
		}
	}
}
