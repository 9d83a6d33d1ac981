package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/internal/durable"
	"github.com/lsnode/lsnode/cluster/lease"
)

// promiseFile is DATA-DIR/promise.json: the highest epoch whose position request
// this node has agreed to answer. It is durable before the answer leaves.
const (
	promiseFile    = "promise.json"
	promiseVersion = 1
)

type promise struct {
	Version int    `json:"version"`
	Epoch   uint64 `json:"epoch"`
}

// errPromised is returned for a request below an epoch that was answered.
var errPromised = errors.New("a higher epoch has been answered")

// voter does what lease.Voter decides. Safe for concurrent use.
type voter struct {
	path    string
	changed notifier // something was fenced, or a reign ended

	mu   sync.Mutex
	core *lease.Voter // guarded by mu

	saveMu sync.Mutex // held while the file is written; taken before mu
	saved  uint64     // the epoch in the file; guarded by saveMu
}

// openVoter reads what was promised. The process is taken to start now.
func openVoter(dataDir string, timing lease.Timing) (*voter, error) {
	path := filepath.Join(dataDir, promiseFile)
	var p promise
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read promise: %w", err)
	default:
		if err := json.Unmarshal(data, &p); err != nil {
			return nil, fmt.Errorf("read promise %s: %w", path, err)
		}
		if p.Version != promiseVersion {
			return nil, fmt.Errorf("read promise %s: version is %d, this program knows %d", path, p.Version, promiseVersion)
		}
	}
	return &voter{path: path, core: lease.NewVoter(timing, p.Epoch, now()), saved: p.Epoch}, nil
}

// promised returns the highest epoch answered: nothing lower may be accepted.
func (v *voter) promised() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.core.Promised()
}

// renew answers a renewal.
func (v *voter) renew(epoch uint64, length time.Duration) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.core.Renew(now(), epoch, length)
}

// reign says that this node may write from now on.
func (v *voter) reign(epoch uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.core.Reign(epoch)
}

// deposed says that this node's reign has ended without all being fenced.
func (v *voter) deposed() {
	v.mu.Lock()
	v.core.Deposed(now())
	v.mu.Unlock()
	v.changed.notify()
}

// fenced takes the primary's word.
func (v *voter) fenced(epoch uint64) {
	v.mu.Lock()
	v.core.Fenced(epoch)
	v.mu.Unlock()
	v.changed.notify()
}

// ask waits until a position request may be answered. On return without error
// the promise is durable, and so the answer may leave. alone skips the wait, for
// the sole voter's own request: nobody else can have been promised anything that
// matters. errPromised is wrapped if a higher epoch has been answered.
func (v *voter) ask(ctx context.Context, epoch, reign uint64, alone bool) error {
	for {
		changed := v.changed.next()
		d := v.decide(epoch, reign, alone)
		switch {
		case d.Refuse:
			return fmt.Errorf("answer epoch %d: %w: %d", epoch, errPromised, v.promised())
		case d.Answer:
			return v.save(epoch)
		}
		timer := time.NewTimer(d.Wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("wait for promises to end: %w", ctx.Err())
		}
		timer.Stop()
	}
}

func (v *voter) decide(epoch, reign uint64, alone bool) lease.Decision {
	v.mu.Lock()
	defer v.mu.Unlock()
	if alone {
		v.core.Fenced(reign)
	}
	return v.core.Ask(now(), epoch, reign)
}

// save makes a promise durable.
func (v *voter) save(epoch uint64) error {
	v.saveMu.Lock()
	defer v.saveMu.Unlock()
	if epoch <= v.saved {
		return nil
	}
	if err := durable.WriteJSON(v.path, promise{Version: promiseVersion, Epoch: epoch}, 0o600); err != nil {
		return fmt.Errorf("keep promise: %w", err)
	}
	v.saved = epoch
	return nil
}
