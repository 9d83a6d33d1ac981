package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/state"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/stream"
)

// message is the live message of the transaction that follows a position in the
// site's log.
func (s *site) message(after walstream.Position) *stream.Message {
	s.t.Helper()
	for txn, err := range s.d.txlog.Since("app", after) {
		must(s.t, err)
		record, whole, err := walstream.EncodeOne(txn, stream.MaxRecord)
		must(s.t, err)
		if !whole {
			return &stream.Message{Kind: stream.Announced, Header: txn.Header}
		}
		decoded, err := walstream.Decode(record)
		must(s.t, err)
		return &stream.Message{Kind: stream.Whole, Header: decoded.Header, Record: record, Txn: decoded}
	}
	s.t.Fatalf("nothing follows %s", after)
	return nil
}

// each inserts rows one by one, and returns the live message of each.
func (s *site) each(app *application, rows ...int) []*stream.Message {
	s.t.Helper()
	var messages []*stream.Message
	for _, row := range rows {
		before := s.d.txlog.Last("app")
		app.insert(row)
		s.reach(before.TXID + 1)
		messages = append(messages, s.message(before))
	}
	return messages
}

func TestLiveMessages(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.following(primary, 1, began(), func(f *following) {
		s.until("stream", func() bool { return s.status().State == "streaming" })
		messages := primary.each(app, 4, 5, 6)
		before := s.counted()
		f.offer(messages[0])
		f.offer(messages[0]) // twice
		f.offer(messages[1])
		f.offer(messages[0]) // late
		deposed := *messages[2]
		deposed.Header.Post.Epoch++
		f.offer(&deposed) // in the name of another reign
		s.shown(primary.at(6))
		f.offer(messages[2])
		s.shown(primary.at(7))
		after := s.counted()
		if got := (counts{applied: after.applied - before.applied, steps: after.steps - before.steps, gaps: after.gaps - before.gaps}); got != (counts{applied: 3, steps: 3}) {
			t.Errorf("counted %+v", got)
		}
		s.until("count of delays", func() bool { return value(t, s.delay()) == 3 })
	})
	wantRows(t, s.path, "1 2 3 4 5 6")
}

// A message that never came is noticed by the next one, and both are pulled.
func TestGapIsFilled(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.following(primary, 1, began(), func(f *following) {
		s.until("stream", func() bool { return s.status().State == "streaming" })
		f.offer(primary.each(app, 4, 5)[1])
		s.shown(primary.at(6))
		s.until("count of gaps", func() bool { return s.counted().gaps == 1 })
	})
	wantRows(t, s.path, "1 2 3 4 5")
}

// The last message before the stream falls silent is noticed by tips: the first
// may overtake it, the second says that it is lost.
func TestLostLastMessageIsFound(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.following(primary, 1, began(), func(f *following) {
		s.until("stream", func() bool { return s.status().State == "streaming" })
		primary.each(app, 4)
		f.heard(primary.at(5), time.Now())
		if visible, _ := s.d.progress.position(); visible == primary.at(5) {
			t.Error("the first tip made it pull")
		}
		if behind := s.status().LagTXIDs; behind != 1 {
			t.Errorf("%d commits behind, want 1", behind)
		}
		f.heard(primary.at(5), time.Now())
		s.shown(primary.at(5))
	})
	wantRows(t, s.path, "1 2 3 4")
}

// A transaction that is too large for a message is pulled, and is no gap.
func TestAnnouncedIsPulled(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.following(primary, 1, began(), func(f *following) {
		s.until("stream", func() bool { return s.status().State == "streaming" })
		before := primary.d.txlog.Last("app")
		app.run("INSERT INTO t VALUES(hex(randomblob(1000000)));")
		goal := primary.reach(before.TXID + 1)
		m := primary.message(before)
		if m.Kind != stream.Announced {
			t.Fatalf("2 MB travel as a message of kind %d", m.Kind)
		}
		f.offer(m)
		s.shown(goal)
		if n := s.counted().gaps; n != 0 {
			t.Errorf("%d gaps", n)
		}
	})
	if got := sqlite(t, s.path, "SELECT count(*), max(length(a)) FROM t"); got != "4|2000000" {
		t.Errorf("the copy has %s", got)
	}
}

// More than the inbox holds: what was dropped is pulled.
func TestFullInbox(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.following(primary, 1, began(), func(f *following) {
		s.until("stream", func() bool { return s.status().State == "streaming" })
		messages := primary.each(app, 4, 5)
		s.d.content.Lock() // the follower can't apply
		for range 2 * inboxSize {
			f.offer(messages[0])
		}
		f.offer(messages[1])
		s.d.content.Unlock()
		s.shown(primary.at(6))
	})
	wantRows(t, s.path, "1 2 3 4 5")
}

// After the promise to a higher epoch nothing of the lower one is logged, by
// message or by pull.
func TestNothingOfALowerEpochIsLogged(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.following(primary, 1, began(), func(f *following) {
		s.until("stream", func() bool { return s.status().State == "streaming" })
		messages := primary.each(app, 4, 5)
		s.d.gate.promise(2)
		before := s.d.txlog.Last("app")
		err := f.take(t.Context(), arrival{messages[0], time.Now()})
		if !errors.Is(err, errPromised) {
			t.Errorf("a message was taken with %v", err)
		}
		err = s.d.pullFrom(t.Context(), 1, state.Line{}, primary.dial(), stream.Since{Database: "app", After: before})
		if err == nil {
			t.Error("a pull in the name of epoch 1 was done")
		}
		if last := s.d.txlog.Last("app"); last != before {
			t.Errorf("the log has %s", last)
		}
		must(t, s.d.pullFrom(t.Context(), 2, state.Line{}, primary.dial(), stream.Since{Database: "app", After: before}))
		if last := s.d.txlog.Last("app"); last != primary.at(6) {
			t.Errorf("pulled in the name of epoch 2 up to %s", last)
		}
	})
}

// What the primary can't give another node may have; but nothing is taken of
// what is off the line.
func TestGapIsFilledFromAnotherNode(t *testing.T) {
	other, s, app, stop := followed(t)
	defer stop()
	away := errors.New("out of reach")
	dial := func(id string) stream.Dialer {
		if id == "n3" {
			return other.dial()
		}
		return func(context.Context) (net.Conn, error) { return nil, away }
	}
	other.each(app, 4, 5)
	f := newFollowing(s.d, &term{epoch: 1, line: began(), primary: "n2", dial: dial, sources: func() []string { return []string{"n3", "n2"} }})
	repair, err := s.d.settle(t.Context(), began(), false)
	if err != nil || repair {
		t.Fatalf("repair %v, %v", repair, err)
	}
	if err := f.pull(t.Context(), stream.Since{}); !errors.Is(err, away) {
		t.Errorf("the rest is the primary's to give: %v", err)
	}
	if last := s.d.txlog.Last("app"); last != other.at(6) {
		t.Errorf("stands at %s, want %s", last, other.at(6))
	}
	other.each(app, 6)
	at := toState(other.at(6))
	branched := state.Line{Reigns: append(began().Reigns, state.Reign{Epoch: 2, Node: "n2", Start: map[string]state.Position{"app": at}})}
	err = s.d.pullFrom(t.Context(), 1, branched, other.dial(), stream.Since{Database: "app", After: other.at(6)})
	if !errors.Is(err, errOffLine) || s.d.txlog.Last("app") != other.at(6) {
		t.Errorf("off the line: %v, stands at %s", err, s.d.txlog.Last("app"))
	}
}

// A primary whose lease is over logs and ships nothing more; what its
// application still commits is counted as lost to the cluster.
func TestNothingIsShippedWithoutLease(t *testing.T) {
	s := newSite(t)
	table(t, s.path)
	var over atomic.Bool
	var refused atomic.Int32
	stop := s.reignWhile(1, func() bool {
		if over.Load() {
			refused.Add(1)
		}
		return !over.Load()
	})
	app := newApplication(t, s.path)
	s.each(app, 1)
	over.Store(true)
	app.insert(2)
	s.until("refusal to ship", func() bool { return refused.Load() > 0 })
	app.insert(3)
	stop()
	end := s.d.txlog.Last("app")
	if end.TXID != 2 {
		t.Errorf("the log stands at %s", end)
	}
	if _, err := s.d.settle(t.Context(), began(end), false); err != nil {
		t.Fatal(err)
	}
	entry, copied := s.kept()
	if entry.Logged != 0 || entry.Uncaptured != 2 || !entry.Exact {
		t.Errorf("kept %+v", entry)
	}
	wantRows(t, copied, "1 2 3")
}

func TestAwait(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	n := &Node{shared: s.d.shared}
	ctx, cancel := context.WithTimeout(t.Context(), briefly)
	defer cancel()
	primary.each(app, 4)
	if err := n.await(ctx, "app", primary.at(5)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("reached what it has not: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.await(t.Context(), "app", primary.at(5)); err != nil {
			t.Error(err)
		}
	}()
	s.follow(primary, 1, began(), primary.at(5))
	within(t, done, fmt.Sprintf("reach %s", primary.at(5)))
}
