package consensus

import (
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// retryWrite is how long patientStable waits before it tries a write again.
const retryWrite = 500 * time.Millisecond

// keyTerm is Raft's name for the term.
const keyTerm = "CurrentTerm"

// patientStable keeps term and vote. Raft panics if it can't write them, which
// on a full disk would end the process, and with it the primary, again and
// again. Here a write that fails is repeated until it succeeds: this node has no
// say in elections meanwhile, and everything else goes on.
//
// When Close overtakes such a write, a vote is refused. For the term Raft knows no
// refusal but its panic, so it is reported as written: without a vote in it, it
// binds this node to nothing.
type patientStable struct {
	raft.StableStore
	logger *slog.Logger
	closed <-chan struct{}
}

var _ raft.StableStore = (*patientStable)(nil)

// Set implements [raft.StableStore].
func (s *patientStable) Set(key, value []byte) error {
	return s.repeat(key, func() error { return s.StableStore.Set(key, value) })
}

// SetUint64 implements [raft.StableStore].
func (s *patientStable) SetUint64(key []byte, value uint64) error {
	return s.repeat(key, func() error { return s.StableStore.SetUint64(key, value) })
}

func (s *patientStable) repeat(key []byte, write func() error) error {
	for attempt := 0; ; attempt++ {
		err := write()
		if err == nil {
			return nil
		}
		if attempt%20 == 0 { // every ten seconds
			s.logger.Error("write term and vote of elections; this node takes no part in them until that succeeds", "error", err)
		}
		select {
		case <-time.After(retryWrite):
		case <-s.closed:
			if string(key) == keyTerm {
				return nil
			}
			return err
		}
	}
}
