package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/lease"
)

// errLeaseLost ends a reign.
var errLeaseLost = errors.New("no majority of the voters has renewed the lease in time")

// keeper keeps the lease of one epoch: it renews with every member, voter or not,
// so that a member that becomes a voter counts at once. Its methods are safe for
// concurrent use.
type keeper struct {
	epoch  uint64
	timing lease.Timing
	logger *slog.Logger
	// renew asks one member for a promise; it returns nil if that was given.
	renew   func(ctx context.Context, node string) error
	publish func(epoch uint64, deadline time.Duration) // Config.Lease; nil: nobody is told
	changed notifier                                   // the lease's end moved, or the members changed

	mu      sync.Mutex
	holder  *lease.Holder   // guarded by mu
	voters  func() []string // of the newest configuration, committed or not; guarded by mu
	members []string        // guarded by mu
	// What was passed on last, if anything was; guarded by mu.
	published  time.Duration
	publishing bool
}

func newKeeper(epoch uint64, self string, timing lease.Timing, logger *slog.Logger, renew func(context.Context, string) error) *keeper {
	return &keeper{epoch: epoch, timing: timing, logger: logger, renew: renew, holder: lease.NewHolder(epoch, self, timing)}
}

// setMembers takes whom to renew with, and where the voters are to be had. These
// are looked at anew at every look at the lease: a change of theirs may be in
// Raft's log long before, or after, whoever asked for it has an answer, and a
// lease that counts voters of two changes ago excludes nobody.
func (k *keeper) setMembers(voters func() []string, all []string) {
	k.mu.Lock()
	k.voters = voters
	k.members = all
	k.untilLocked()
	k.mu.Unlock()
	k.changed.notify()
}

// run renews until ctx ends, and returns when all renewals have.
func (k *keeper) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[string]context.CancelFunc{}
	for {
		changed := k.changed.next()
		k.mu.Lock()
		members := k.members
		k.mu.Unlock()
		wanted := map[string]bool{}
		for _, m := range members {
			wanted[m] = true
			if running[m] == nil {
				renewing, cancel := context.WithCancel(ctx)
				running[m] = cancel
				wg.Go(func() { k.renewLoop(renewing, m) })
			}
		}
		for m, cancel := range running {
			if !wanted[m] {
				cancel()
				delete(running, m)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		}
	}
}

func (k *keeper) renewLoop(ctx context.Context, node string) {
	ticker := time.NewTicker(k.timing.Renewal)
	defer ticker.Stop()
	warned := false
	for {
		sent := now()
		call, cancel := context.WithTimeout(ctx, k.timing.Lease)
		err := k.renew(call, node)
		cancel()
		switch {
		case err == nil:
			k.answered(node, sent)
		case errors.Is(err, ErrInvalid) && !warned:
			k.logger.Warn("renew lease", "epoch", k.epoch, "error", err)
			warned = true
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (k *keeper) answered(node string, sent time.Duration) {
	k.mu.Lock()
	before := k.untilLocked()
	k.holder.Answered(node, sent)
	moved := k.untilLocked() != before
	k.mu.Unlock()
	if moved {
		k.changed.notify()
	}
}

// fresh tells whether a member has promised lately.
func (k *keeper) fresh(node string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holder.Fresh(node, now())
}

// resign ends the lease for good.
func (k *keeper) resign() {
	k.mu.Lock()
	k.holder.Resign()
	k.untilLocked()
	k.mu.Unlock()
	k.changed.notify()
}

// until returns the lease's end on the clock of leases.
func (k *keeper) until() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.untilLocked()
}

// untilLocked is until; it also passes the lease's end on if that has moved.
func (k *keeper) untilLocked() time.Duration {
	if k.voters != nil {
		k.holder.SetVoters(k.voters())
	}
	until := k.holder.Until()
	deadline := until
	if k.holder.Sole() {
		deadline = lease.Forever // also after its reign: see Config.Lease
	}
	if k.publish != nil && (deadline != k.published || !k.publishing) {
		k.publishing, k.published = true, deadline
		k.publish(k.epoch, deadline)
	}
	return until
}

// awaitValid returns once the lease is held.
func (k *keeper) awaitValid(ctx context.Context) error {
	for {
		changed := k.changed.next()
		if k.until() > now() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the lease of epoch %d: %w", k.epoch, ctx.Err())
		}
	}
}

// awaitLost returns errLeaseLost once the lease is over, or ctx's error.
func (k *keeper) awaitLost(ctx context.Context) error {
	for {
		changed := k.changed.next()
		until := k.until()
		left := until - now()
		if left <= 0 {
			return errLeaseLost
		}
		timer := time.NewTimer(min(left, k.timing.Renewal)) // nothing tells when the voters change
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// Lease tells until when a primary may write. Safe for concurrent use.
type Lease struct {
	keeper *keeper
}

// Valid tells whether the primary may write at this moment.
func (l Lease) Valid() bool { return now() < l.keeper.until() }

// Until returns when the lease ends unless it is renewed before: a wall time that
// can be compared with time.Now. A sole voter's is far in the future.
func (l Lease) Until() time.Time { return wallTime(l.keeper.until()) }

// Deadline is [Lease.Until] on CLOCK_BOOTTIME, which all processes of a host
// share; the largest Duration for a sole voter, zero once it is over for good.
func (l Lease) Deadline() time.Duration { return l.keeper.until() }
