package node

import (
	"maps"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

type standings = map[string]walstream.Position

func TestDigest(t *testing.T) {
	base := standings{"a": at(1, 1), "b": at(1, 2)}
	same := standings{"b": at(1, 2), "a": at(1, 1)}
	if digest(base) != digest(same) {
		t.Error("two digests of the same")
	}
	for what, other := range map[string]standings{
		"one is missing":   {"a": at(1, 1)},
		"swapped":          {"a": at(1, 2), "b": at(1, 1)},
		"another epoch":    {"a": at(2, 1), "b": at(1, 2)},
		"another checksum": {"a": {Epoch: 1, TXID: 1, Checksum: walstream.ChecksumFlag | 77}, "b": at(1, 2)},
		"another name":     {"a": at(1, 1), "c": at(1, 2)},
		"nothing":          {},
	} {
		if digest(base) == digest(other) {
			t.Errorf("%s: the same digest", what)
		}
	}
}

// stands is the answer of a follower that stands there.
func stands(positions standings) tipAnswer { return tipAnswer{Positions: positionTexts(positions)} }

// A node counts as caught up if it has what the tip before the last said: what
// the last one said may be on its way.
func TestCaughtUp(t *testing.T) {
	tips := newTips()
	now := time.Now()
	if tips.caughtUp("n2") || !tips.wantsPositions("n2") {
		t.Error("before its first answer")
	}
	tips.answered("n2", standings{"app": at(1, 5)}, nil, stands(standings{"app": at(1, 5)}), now)
	if tips.caughtUp("n2") {
		t.Error("after one tip nothing proves that it keeps up")
	}
	steps := []struct {
		what           string
		sent, stands   standings
		equal          bool
		caughtUp, full bool
	}{
		{"equal", standings{"app": at(1, 6)}, nil, true, true, false},
		{"behind the last, not the one before", standings{"app": at(1, 9)}, standings{"app": at(1, 7)}, false, true, true},
		{"behind the one before", standings{"app": at(1, 12)}, standings{"app": at(1, 8)}, false, false, true},
		{"again at it", standings{"app": at(1, 13)}, standings{"app": at(1, 12)}, false, true, true},
		{"another database came", standings{"app": at(1, 13), "new": at(1, 1)}, standings{"app": at(1, 13)}, false, true, true},
		{"and is not there", standings{"app": at(1, 13), "new": at(1, 1)}, standings{"app": at(1, 13)}, false, false, true},
		{"an older epoch", standings{"app": at(2, 13), "new": at(2, 1)}, standings{"app": at(1, 99), "new": at(1, 1)}, false, true, true},
		{"does not count", standings{"app": at(2, 13), "new": at(2, 1)}, standings{"app": at(1, 99), "new": at(2, 1)}, false, false, true},
	}
	for _, s := range steps {
		answer := stands(s.stands)
		answer.Equal = s.equal
		tips.answered("n2", s.sent, nil, answer, now)
		if got := tips.caughtUp("n2"); got != s.caughtUp {
			t.Errorf("%s: caught up %t", s.what, got)
		}
		if got := tips.wantsPositions("n2"); got != s.full {
			t.Errorf("%s: wants positions %t", s.what, got)
		}
	}
}

func TestCaughtUpEnds(t *testing.T) {
	tips := newTips()
	sent := standings{"app": at(1, 5)}
	long := time.Now().Add(-10 * tipInterval)
	tips.answered("n2", sent, nil, tipAnswer{Equal: true}, long)
	tips.answered("n2", maps.Clone(sent), nil, tipAnswer{Equal: true}, long)
	if tips.caughtUp("n2") {
		t.Error("caught up though it has not answered for long")
	}
	tips.answered("n2", sent, nil, tipAnswer{Equal: true}, time.Now())
	if !tips.caughtUp("n2") {
		t.Error("not caught up though it answers again")
	}
	tips.reset()
	if tips.caughtUp("n2") {
		t.Error("an earlier reign's knowledge was kept")
	}
}

// What an answer says of a follower is what its caller may count on.
func TestAnswerSaysWhatIsOnDisk(t *testing.T) {
	tips := newTips()
	sent := standings{"app": at(3, 9)}
	if got := tips.answered("n2", sent, nil, stands(standings{"app": at(3, 7)}), time.Now()); got["app"] != at(3, 7) {
		t.Errorf("behind: %v", got)
	}
	if got := tips.answered("n2", sent, nil, tipAnswer{Equal: true}, time.Now()); got["app"] != at(3, 9) {
		t.Errorf("equal: %v", got)
	}
	if got := tips.answered("n2", sent, nil, tipAnswer{Positions: map[string]string{"app": "rubbish"}}, time.Now()); len(got) != 0 {
		t.Errorf("an answer that can't be read: %v", got)
	}
}

// A follower is told of a majority's position only what it was not told before.
func TestNewsOfSynced(t *testing.T) {
	tips := newTips()
	all := map[string]walstream.TXID{"a": 1, "b": 2}
	if got := tips.news("n2", all); len(got) != 2 {
		t.Errorf("first: %v", got)
	}
	tips.answered("n2", nil, all, tipAnswer{Equal: true}, time.Now())
	if got := tips.news("n2", map[string]walstream.TXID{"a": 1, "b": 3}); len(got) != 1 || got["b"] != 3 {
		t.Errorf("one has moved: %v", got)
	}
}
