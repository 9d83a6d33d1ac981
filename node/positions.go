package node

import (
	"github.com/lsnode/lsnode/cluster/state"
	"github.com/lsnode/lsnode/walstream"
)

// The cluster knows positions as three numbers, the data path as three types.

func toState(p walstream.Position) state.Position {
	return state.Position{Epoch: uint64(p.Epoch), TXID: uint64(p.TXID), Checksum: uint64(p.Checksum)}
}

func fromState(p state.Position) walstream.Position {
	return walstream.Position{
		Epoch: walstream.Epoch(p.Epoch), TXID: walstream.TXID(p.TXID), Checksum: walstream.Checksum(p.Checksum),
	}
}
