package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// openStore opens the log of a directory.
func openStore(dir string) (*raftboltdb.BoltStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, "raft.db"),
		BoltOptions: &bbolt.Options{
			// The lock of the data dir keeps other processes out; this only turns a
			// mistake into an error instead of a wait.
			Timeout: 5 * time.Second,
			// The list of free pages is found by a scan at the next start instead
			// of being written with each commit.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return store, nil
}

// Read brings the machine to the end of what the directory of a node that is not
// running holds, committed or not, and returns the newest configuration.
func Read(dir string, machine Machine, logger *slog.Logger) (members []Member, err error) {
	store, err := openStore(dir)
	if err != nil {
		return nil, fmt.Errorf("read raft: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var configuration raft.Configuration
	index, err := readSnapshot(dir, machine, &configuration, logger)
	if err != nil {
		return nil, fmt.Errorf("read raft: %w", err)
	}
	last, err := store.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("read raft: %w", err)
	}
	for index++; index <= last; index++ {
		var entry raft.Log
		if err := store.GetLog(index, &entry); err != nil {
			return nil, fmt.Errorf("read raft: entry %d: %w", index, err)
		}
		switch entry.Type {
		case raft.LogCommand:
			machine.Apply(index, entry.Data)
		case raft.LogConfiguration:
			configuration = raft.DecodeConfiguration(entry.Data)
		}
	}
	return membersOf(configuration), nil
}

// readSnapshot restores the newest snapshot, if there is one, and returns its
// index.
func readSnapshot(dir string, machine Machine, configuration *raft.Configuration, logger *slog.Logger) (uint64, error) {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, newLogger(logger))
	if err != nil {
		return 0, err
	}
	all, err := snapshots.List()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	meta, content, err := snapshots.Open(all[0].ID)
	if err != nil {
		return 0, err
	}
	if err := (&fsm{machine: machine}).Restore(content); err != nil {
		return 0, err
	}
	*configuration = meta.Configuration
	return meta.Index, nil
}

// Recover makes a node that is not running the only member, in its own directory
// and without asking anyone: whatever the others have committed and this node has
// not is lost, and whatever this node's log ends with counts as committed. The
// machine is brought to the end of the log, and what its Snapshot returns then is
// the state from which the node goes on. On return all is durable; after a crash
// in the middle either nothing has happened or it can be repeated.
func Recover(dir string, self Member, machine Machine, logger *slog.Logger) (err error) {
	store, err := openStore(dir)
	if err != nil {
		return fmt.Errorf("recover raft: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log := newLogger(logger)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, log)
	if err != nil {
		return fmt.Errorf("recover raft: %w", err)
	}
	options := raft.DefaultConfig()
	options.LocalID, options.Logger, options.NoLegacyTelemetry = raft.ServerID(self.ID), log, true
	_, transport := raft.NewInmemTransport(raft.ServerAddress(self.Address)) // only encodes the address
	alone := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(self.ID), Address: raft.ServerAddress(self.Address),
	}}}
	if err := raft.RecoverCluster(options, &fsm{machine: machine}, store, store, snapshots, transport, alone); err != nil {
		return fmt.Errorf("recover raft: %w", err)
	}
	return nil
}
