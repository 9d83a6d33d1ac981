package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/internal/durable"
)

// rejoinFile is DATA-DIR/rejoin.json: this node was dropped by a recovery of the
// cluster and is to join anew, with the data that it has. It is made first and
// removed last.
const (
	rejoinFile    = "rejoin.json"
	rejoinVersion = 1
)

type rejoin struct {
	Version int      `json:"version"`
	Peers   []string `json:"peers"`
}

// droppedInterval is how often a primary tells those whom a recovery has dropped.
// Of these a majority of the old configuration may come back at once, and would
// elect a primary of their own until they are told.
const droppedInterval = 2 * time.Second

// droppedRequest tells a node that it was dropped.
type droppedRequest struct {
	ID        string `json:"id"`
	Recovered uint64 `json:"recovered"` // what the recovery has set the counter to
	Address   string `json:"address"`   // of who tells, to join through
}

// tellDropped tells, again and again, who is not a member any more since a
// recovery.
func (r *reign) tellDropped(ctx context.Context) {
	ticker := time.NewTicker(droppedInterval)
	defer ticker.Stop()
	for {
		s := r.c.State()
		for id, n := range s.Dropped {
			if _, still := r.c.State().Dropped[id]; !still {
				continue // it has joined meanwhile
			}
			tell, cancel := context.WithTimeout(ctx, r.c.config.Timing.Lease)
			request := droppedRequest{ID: id, Recovered: s.Recovered, Address: r.c.advertise}
			if err := r.c.CallAddress(tell, atAddress(n), methodDropped, request, nil); err != nil {
				r.c.logger.Debug("tell a node that the cluster was recovered without it", "node", n.Name, "error", err)
			}
			cancel()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// dropped tells whether a recovery went on without a node that has not joined
// since. A leader of the old configuration would have this node follow it.
func (c *Cluster) dropped(id string) bool {
	_, dropped := c.State().Dropped[id]
	return dropped
}

// answerDropped takes the word of a recovered cluster's primary, unless this node
// knows of that recovery and so has joined since.
func (c *Cluster) answerDropped(r droppedRequest) error {
	if r.ID != c.Self() || r.Recovered <= c.State().Recovered {
		return nil
	}
	return c.setDropped(append([]string{r.Address}, c.acquaintances()...))
}

// setDropped makes Run end, and the next Open begin to join anew through any of
// the peers.
func (c *Cluster) setDropped(peers []string) error {
	if c.removal() != nil {
		return nil
	}
	path := filepath.Join(c.config.DataDir, rejoinFile)
	if err := durable.WriteJSON(path, rejoin{Version: rejoinVersion, Peers: peers}, 0o600); err != nil {
		return fmt.Errorf("prepare to join anew: %w", err)
	}
	c.setRemoved(ErrDropped)
	return nil
}

// beginRejoin makes the data dir of a dropped node one that belongs to no
// cluster, but for what it has promised and its databases. Its part in the old
// Raft is worth nothing any more.
func (c *Cluster) beginRejoin() error {
	data, err := os.ReadFile(filepath.Join(c.config.DataDir, rejoinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("join anew: %w", err)
	}
	var r rejoin
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("join anew: read %s: %w", rejoinFile, err)
	}
	if r.Version != rejoinVersion {
		return fmt.Errorf("join anew: version of %s is %d, this program knows %d", rejoinFile, r.Version, rejoinVersion)
	}
	if err := os.RemoveAll(filepath.Join(c.config.DataDir, "raft")); err != nil {
		return fmt.Errorf("join anew: %w", err)
	}
	if err := durable.SyncDir(c.config.DataDir); err != nil {
		return fmt.Errorf("join anew: %w", err)
	}
	if err := c.identity.ClearCluster(); err != nil {
		return fmt.Errorf("join anew: %w", err)
	}
	for _, peer := range append(r.Peers, c.config.Peers...) {
		if !slices.Contains(c.rejoinPeers, peer) {
			c.rejoinPeers = append(c.rejoinPeers, peer)
		}
	}
	return nil
}

// RejoinPeers returns whom to join through if this node was dropped by a recovery
// and is to join anew; nil otherwise.
func (c *Cluster) RejoinPeers() []string { return c.rejoinPeers }

// endRejoin is called once the data dir belongs to a cluster; durable on return.
func endRejoin(dataDir string) error {
	err := os.Remove(filepath.Join(dataDir, rejoinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = durable.SyncDir(dataDir)
	}
	if err != nil {
		return fmt.Errorf("end of joining anew: %w", err)
	}
	return nil
}
