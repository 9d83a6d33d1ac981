package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// voters is what a barrier asks: voters whose disks a test decides about.
type voters struct {
	mu    sync.Mutex
	ids   []string
	dead  map[string]bool
	calls []map[string]walstream.Position
	gate  chan struct{} // if set, calls wait for it
}

func (v *voters) list() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.ids)
}

func (v *voters) ask(ctx context.Context, id string, positions map[string]walstream.Position) error {
	v.mu.Lock()
	v.calls = append(v.calls, positions)
	dead, gate := v.dead[id], v.gate
	v.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if dead {
		return errors.New("no answer")
	}
	return nil
}

func waitBriefly(b *barrier, pos walstream.Position, wait time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return b.wait(ctx, context.Background(), "app", pos)
}

func TestBarrierNeedsMajority(t *testing.T) {
	tests := []struct {
		name string
		ids  []string
		dead map[string]bool
		own  bool
		ok   bool
	}{
		{"alone", []string{"n1"}, nil, true, true},
		{"alone, not on its own disk", []string{"n1"}, nil, false, false},
		{"three", []string{"n1", "n2", "n3"}, nil, true, true},
		{"one of three is dead", []string{"n1", "n2", "n3"}, map[string]bool{"n3": true}, true, true},
		{"two of three are dead", []string{"n1", "n2", "n3"}, map[string]bool{"n2": true, "n3": true}, true, false},
		{"half of four", []string{"n1", "n2", "n3", "n4"}, map[string]bool{"n3": true, "n4": true}, true, false},
		{"the others only", []string{"n1", "n2", "n3"}, nil, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &voters{ids: tt.ids, dead: tt.dead}
			b := newBarrier(7, "n1", v.list, v.ask)
			if tt.own {
				b.has("n1", map[string]walstream.Position{"app": at(7, 5)})
			}
			wait := 10 * time.Second
			if !tt.ok {
				wait = 100 * time.Millisecond
			}
			nodes, err := waitBriefly(b, at(7, 5), wait)
			if (err == nil) != tt.ok {
				t.Fatalf("%v, %v", nodes, err)
			}
			if tt.ok && len(nodes) <= len(tt.ids)/2 {
				t.Errorf("only %v", nodes)
			}
		})
	}
}

// What an earlier epoch had on a majority may still be lost: it does not count.
func TestBarrierCountsOwnEpochOnly(t *testing.T) {
	v := &voters{ids: []string{"n1", "n2", "n3"}, dead: map[string]bool{"n2": true, "n3": true}}
	b := newBarrier(7, "n1", v.list, v.ask)
	for _, id := range v.ids {
		b.has(id, map[string]walstream.Position{"app": at(6, 99)})
	}
	b.has("n1", map[string]walstream.Position{"app": at(7, 5)})
	if nodes, err := waitBriefly(b, at(7, 5), 100*time.Millisecond); err == nil {
		t.Errorf("positions of epoch 6 were counted: %v", nodes)
	}
}

// A member that is added counts from then on: a majority of the old ones is
// none of the new.
func TestBarrierFollowsConfiguration(t *testing.T) {
	v := &voters{ids: []string{"n1", "n2", "n3"}, gate: make(chan struct{})}
	b := newBarrier(7, "n1", v.list, v.ask)
	b.has("n1", map[string]walstream.Position{"app": at(7, 5)})
	b.has("n2", map[string]walstream.Position{"app": at(7, 5)})
	v.mu.Lock()
	v.ids = append(v.ids, "n4")
	v.mu.Unlock()
	if nodes, err := waitBriefly(b, at(7, 5), 100*time.Millisecond); err == nil {
		t.Errorf("2 of 4 were enough: %v", nodes)
	}
	if b.holds("n3") != true {
		t.Error("nothing was answered, so n3 lacks nothing")
	}
	b.has("n3", map[string]walstream.Position{"app": at(7, 5)})
	if _, err := waitBriefly(b, at(7, 5), 10*time.Second); err != nil {
		t.Error(err)
	}
	if b.holds("n4") || !b.holds("n3") {
		t.Error("what was answered is on n1, n2 and n3")
	}
}

// What is wanted while a call is under way shares the next one.
func TestBarrierSharesCalls(t *testing.T) {
	v := &voters{ids: []string{"n1", "n2", "n3"}, dead: map[string]bool{"n3": true}, gate: make(chan struct{})}
	b := newBarrier(7, "n1", v.list, v.ask)
	b.has("n1", map[string]walstream.Position{"app": at(7, 100)})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := waitBriefly(b, at(7, walstream.TXID(i+1)), 20*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	for { // until all sixteen wait
		b.mu.Lock()
		n := b.waiting
		b.mu.Unlock()
		if n == 16 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(v.gate)
	wg.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.calls) > 8 {
		t.Errorf("%d calls for 16 waiters", len(v.calls))
	}
}

func TestRoundsServeThoseWhoCameBefore(t *testing.T) {
	var s rounds
	var mu sync.Mutex
	begun := 0
	hold := make(chan struct{})
	work := func() error {
		mu.Lock()
		begun++
		first := begun == 1
		mu.Unlock()
		if first {
			<-hold
		}
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.do(context.Background(), work) })
	for {
		mu.Lock()
		n := begun
		mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for range 10 { // they came after the first began, so it does not serve them
		wg.Go(func() { _ = s.do(context.Background(), work) })
	}
	for {
		s.mu.Lock()
		joined := s.next != nil
		s.mu.Unlock()
		if joined {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wg.Wait()
	if begun < 2 || begun > 11 {
		t.Errorf("%d runs", begun)
	}
}
