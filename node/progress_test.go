package node

import (
	"errors"
	"testing"
	"time"

	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
)

// at is a position whose checksum follows from the rest.
func at(epoch walstream.Epoch, txid walstream.TXID) walstream.Position {
	return walstream.Position{Epoch: epoch, TXID: txid, Checksum: walstream.ChecksumFlag | walstream.Checksum(txid)}
}

// Lag says since when this node has not known itself to be at the primary's
// position, whoever's clock is right.
func TestLag(t *testing.T) {
	p := newProgress()
	start := time.Now()
	second := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	p.become(api.StateStreaming, nil)
	if _, known := p.lag(second(0)); known {
		t.Error("current before anything was heard")
	}
	check := func(when string, now time.Time, want time.Duration, txids uint64) {
		t.Helper()
		got, known := p.lag(now)
		if s := p.status("app", "", now); !known || got != want || s.LagTXIDs != txids || s.LagMS != float64(want.Milliseconds()) {
			t.Errorf("%s: lag %s and %d commits (status %v ms), want %s and %d", when, got, s.LagTXIDs, s.LagMS, want, txids)
		}
	}
	p.show(at(1, 10))
	p.heard(at(1, 10), second(1))
	check("at the tip", second(1), 0, 0)
	check("and nothing heard since", second(3), 2*time.Second, 0)
	p.heard(at(1, 12), second(4))
	p.heard(at(1, 15), second(5)) // does not replace the mark, else it would never be reached
	check("behind", second(6), 5*time.Second, 5)
	p.show(at(1, 12))
	check("at the mark: current as of when it was heard", second(6), 2*time.Second, 3)
	p.heard(at(1, 15), second(7))
	p.show(at(1, 15))
	check("caught up", second(7), 0, 0)
	p.heard(at(1, 14), second(8)) // an older word of the primary
	check("beyond what was heard", second(8), 0, 0)
	p.heard(at(1, 15), second(6)) // late: takes nothing back
	check("after a late word", second(8), 0, 0)
}

func TestProgressTellsWaiters(t *testing.T) {
	p := newProgress()
	_, advanced := p.position()
	p.show(at(1, 1))
	within(t, advanced, "news of a position")
	pos, advanced := p.position()
	p.show(at(1, 1)) // no news
	select {
	case <-advanced:
		t.Error("told of a position that is the same")
	default:
	}
	if pos != at(1, 1) {
		t.Errorf("position %s", pos)
	}
}

func TestProgressStatus(t *testing.T) {
	p := newProgress()
	if s := p.status("app", "/p", time.Now()); s.TXID != "" || s.Bookmark != "" || s.SyncedTXID != "" || s.State != api.StateFenced {
		t.Errorf("before anything: %+v", s)
	}
	p.become(api.StateRefused, errors.New("why"))
	p.show(at(2, 0x1f))
	p.setSynced(0x1e)
	p.setWAL(4152)
	p.setKept(3)
	want := api.Database{
		Name: "app", Path: "/p", State: api.StateRefused, Error: "why", Epoch: 2, TXID: "000000000000001f",
		Checksum: at(2, 0x1f).Checksum.String(), Bookmark: at(2, 0x1f).Bookmark(), SyncedTXID: "000000000000001e", WALBytes: 4152, Quarantined: 3,
	}
	if got := p.status("app", "/p", time.Now()); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	p.become(api.StatePrimary, nil)
	p.heard(at(2, 0x2f), time.Now())
	if s := p.status("app", "/p", time.Now().Add(time.Hour)); s.Error != "" || s.LagMS != 0 || s.LagTXIDs != 0 {
		t.Errorf("a primary has no lag, and what was wrong is over: %+v", s)
	}
}
