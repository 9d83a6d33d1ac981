package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestLeaseCountsNewVotersAtOnce: a sole voter's endless lease ends with the
// configuration that has other voters, although nobody says so to the keeper.
func TestLeaseCountsNewVotersAtOnce(t *testing.T) {
	var voters atomic.Pointer[[]string]
	set := func(ids ...string) { voters.Store(&ids) }
	set("a")
	k := newKeeper(3, "a", TimingLAN().Timing, slog.New(slog.DiscardHandler), func(_ context.Context, node string) error {
		if node == "a" {
			return nil
		}
		return errors.New("unreachable")
	})
	k.setMembers(func() []string { return slices.Clone(*voters.Load()) }, []string{"a", "b", "c"})
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan struct{})
	go func() { k.run(ctx); close(running) }()
	defer func() { cancel(); <-running }()

	lost := make(chan error, 1)
	go func() { lost <- k.awaitLost(ctx) }()
	if l := (Lease{k}); !l.Valid() {
		t.Fatal("a sole voter holds no lease")
	}
	set("a", "b", "c")
	if l := (Lease{k}); l.Valid() {
		t.Error("the lease of one of three is valid")
	}
	select {
	case err := <-lost:
		if !errors.Is(err, errLeaseLost) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("nobody notices that the lease is lost")
	}
}
