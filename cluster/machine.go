package cluster

import (
	"log/slog"
	"sync/atomic"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/state"
)

// machine keeps the replicated state. Raft calls Apply and Restore one at a time;
// current may be read at any time.
type machine struct {
	current atomic.Pointer[state.State]
	changed *notifier
	logger  *slog.Logger
}

var _ consensus.Machine = (*machine)(nil)

// applied is what Apply answers.
type applied struct {
	epoch uint64 // the counter after it: of a candidacy, its epoch
	err   error  // why the command was refused
}

func newMachine(changed *notifier, logger *slog.Logger) *machine {
	m := &machine{changed: changed, logger: logger}
	m.current.Store(state.New())
	return m
}

// Apply implements [consensus.Machine]. Its result is an applied.
func (m *machine) Apply(index uint64, command []byte) any {
	next, epoch, err := state.Apply(m.current.Load(), command)
	if err != nil {
		m.logger.Debug("command was refused", "index", index, "error", err)
		return applied{err: err}
	}
	m.current.Store(next)
	m.changed.notify()
	return applied{epoch: epoch}
}

// Snapshot implements [consensus.Machine].
func (m *machine) Snapshot() ([]byte, error) { return m.current.Load().Encode() }

// Restore implements [consensus.Machine].
func (m *machine) Restore(snapshot []byte) error {
	s, err := state.Decode(snapshot)
	if err != nil {
		return err
	}
	m.current.Store(s)
	m.changed.notify()
	return nil
}
