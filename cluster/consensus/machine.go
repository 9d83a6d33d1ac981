package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// maxSnapshot bounds what is read as a snapshot of the small state.
const maxSnapshot = 64 << 20

// fsm adapts a [Machine] to Raft.
type fsm struct {
	machine Machine
	// configured is the index of the newest configuration that was committed
	// since the start; 0: none was.
	configured atomic.Uint64
}

var _ raft.ConfigurationStore = (*fsm)(nil)

// StoreConfiguration implements [raft.ConfigurationStore].
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) { f.configured.Store(index) }

// Apply implements [raft.FSM].
func (f *fsm) Apply(entry *raft.Log) any {
	if entry.Type != raft.LogCommand {
		return nil
	}
	return f.machine.Apply(entry.Index, entry.Data)
}

// Snapshot implements [raft.FSM].
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	data, err := f.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return snapshot(data), nil
}

// Restore implements [raft.FSM].
func (f *fsm) Restore(r io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(io.LimitReader(r, maxSnapshot+1))
	if err != nil {
		return fmt.Errorf("read snapshot of the cluster's state: %w", err)
	}
	if len(data) > maxSnapshot {
		return fmt.Errorf("read snapshot of the cluster's state: more than %d bytes", maxSnapshot)
	}
	return f.machine.Restore(data)
}

// snapshot is the encoded state, immutable.
type snapshot []byte

// Persist implements [raft.FSMSnapshot].
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements [raft.FSMSnapshot].
func (s snapshot) Release() {}
