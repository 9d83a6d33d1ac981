package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// soon is a generous limit for what has to happen, briefly a time in which what
// must not happen would have.
const (
	soon    = time.Minute
	briefly = 50 * time.Millisecond
)

// within fails the test if done is not closed soon.
func within(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(soon):
		t.Fatalf("%s: not within %s", what, soon)
	}
}

func TestPromiseWaitsForWhatIsUnderWay(t *testing.T) {
	g := newGate()
	release, err := g.enter(5)
	if err != nil {
		t.Fatal(err)
	}
	promised := make(chan struct{})
	go func() { defer close(promised); g.promise(6) }()
	select {
	case <-promised:
		t.Fatal("promised while something of a lower epoch was being logged")
	case <-time.After(briefly):
	}
	release()
	within(t, promised, "promise")
}

func TestGateRefusesLowerEpochs(t *testing.T) {
	g := newGate()
	g.promise(6)
	if _, err := g.enter(5); !errors.Is(err, errPromised) {
		t.Errorf("epoch 5 after promising 6: %v", err)
	}
	g.promise(4) // an old request that comes late takes nothing back
	if _, err := g.enter(5); !errors.Is(err, errPromised) {
		t.Errorf("epoch 5 after promising 4 late: %v", err)
	}
	for _, epoch := range []walstream.Epoch{6, 7} {
		release, err := g.enter(epoch)
		if err != nil {
			t.Fatalf("epoch %d: %v", epoch, err)
		}
		release()
	}
	refused := make(chan struct{})
	go func() { defer close(refused); g.promise(8) }() // a refused enter holds nothing
	within(t, refused, "promise after refusals")
}

// A sender that stalls must not hold up a promise.
func TestPromiseEndsWhatIsUnderALowerEpoch(t *testing.T) {
	g := newGate()
	lower, cancel := g.under(t.Context(), 5)
	defer cancel()
	same, cancelSame := g.under(t.Context(), 6)
	defer cancelSame()
	g.promise(6)
	within(t, lower.Done(), "end of the lower epoch's pull")
	if cause := context.Cause(lower); !errors.Is(cause, errPromised) {
		t.Errorf("it ended because of %v", cause)
	}
	late, cancelLate := g.under(t.Context(), 5)
	defer cancelLate()
	within(t, late.Done(), "end of a pull that begins too late")
	ended, cancelEnded := g.under(t.Context(), 6)
	cancelEnded()
	if context.Cause(ended) == nil || errors.Is(context.Cause(ended), errPromised) {
		t.Errorf("cancelled: %v", context.Cause(ended))
	}
	if same.Err() != nil {
		t.Error("the promised epoch's own pull was ended as well")
	}
}
