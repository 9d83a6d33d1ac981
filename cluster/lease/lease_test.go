package lease

import (
	"errors"
	"testing"
	"testing/quick"
	"time"
)

const ms = time.Millisecond

var lan = Timing{Renewal: 100 * ms, Lease: 600 * ms, Margin: 100 * ms}

func TestHolder(t *testing.T) {
	for name, c := range map[string]struct {
		voters   []string
		answered map[string]time.Duration
		want     time.Duration
	}{
		"sole voter":                         {[]string{"a"}, nil, Forever},
		"not a voter":                        {[]string{"b"}, map[string]time.Duration{"a": 10 * ms}, 0},
		"no voters":                          {nil, map[string]time.Duration{"a": 10 * ms}, 0},
		"three, nobody has answered":         {[]string{"a", "b", "c"}, nil, 0},
		"three, only itself":                 {[]string{"a", "b", "c"}, map[string]time.Duration{"a": 10 * ms}, 0},
		"three, two":                         {[]string{"a", "b", "c"}, map[string]time.Duration{"a": 20 * ms, "b": 10 * ms}, 510 * ms},
		"three, all: the second newest":      {[]string{"a", "b", "c"}, map[string]time.Duration{"a": 30 * ms, "b": 10 * ms, "c": 20 * ms}, 520 * ms},
		"three, without itself":              {[]string{"a", "b", "c"}, map[string]time.Duration{"b": 10 * ms, "c": 20 * ms}, 510 * ms},
		"two need both":                      {[]string{"a", "b"}, map[string]time.Duration{"a": 30 * ms}, 0},
		"four need three":                    {[]string{"a", "b", "c", "d"}, map[string]time.Duration{"a": 40 * ms, "b": 30 * ms, "c": 20 * ms, "d": 10 * ms}, 520 * ms},
		"answers of others don't count":      {[]string{"a", "b", "c"}, map[string]time.Duration{"a": 40 * ms, "x": 40 * ms, "y": 40 * ms}, 0},
		"five, the third newest":             {[]string{"a", "b", "c", "d", "e"}, map[string]time.Duration{"a": 50 * ms, "c": 20 * ms, "d": 40 * ms}, 520 * ms},
		"an answer sent at time zero is one": {[]string{"a", "b"}, map[string]time.Duration{"a": 0, "b": 0}, 500 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHolder(3, "a", lan)
			h.SetVoters(c.voters)
			for node, sent := range c.answered {
				h.Answered(node, sent)
				h.Answered(node, sent-5*ms) // a late one takes nothing away
			}
			if got := h.Until(); got != c.want {
				t.Errorf("until %v, want %v", got, c.want)
			}
			if c.want > 0 && (!h.Valid(c.want-1) || h.Valid(c.want)) {
				t.Error("Valid and Until differ")
			}
			h.Resign()
			if h.Until() != 0 || h.Valid(0) {
				t.Error("it is valid after it was given up")
			}
		})
	}
}

// TestHolderKeepsLeaseWhileVotersCome: members renewed with before they vote count
// at once.
func TestHolderKeepsLeaseWhileVotersCome(t *testing.T) {
	h := NewHolder(1, "a", lan)
	h.SetVoters([]string{"a"})
	for _, m := range []string{"a", "b", "c"} {
		h.Answered(m, 1000*ms)
	}
	for _, voters := range [][]string{{"a", "b"}, {"a", "b", "c"}} {
		h.SetVoters(voters)
		if got := h.Until(); got != 1500*ms {
			t.Errorf("with %v until %v", voters, got)
		}
	}
	if !h.Fresh("b", 1499*ms) || h.Fresh("b", 1500*ms) || h.Fresh("d", 0) {
		t.Error("freshness is wrong")
	}
}

// step is one thing that happens to a voter, and what it answers.
type step struct {
	at   time.Duration
	what string // renew, ask, fenced, reign, deposed
	arg  uint64 // epoch
	last uint64 // ask: newest reign
	want string // ok, no, refuse, or how long to wait
}

func TestVoter(t *testing.T) {
	const origin = time.Hour
	for name, c := range map[string]struct {
		promised uint64
		steps    []step
	}{
		"nothing has reigned yet": {0, []step{{0, "ask", 1, 0, "ok"}}},
		"after its start": {0, []step{
			{0, "ask", 2, 1, "600ms"}, {599 * ms, "ask", 2, 1, "1ms"}, {600 * ms, "ask", 2, 1, "ok"},
		}},
		"after a promise": {0, []step{
			{1000 * ms, "renew", 1, 0, "ok"}, {1500 * ms, "renew", 1, 0, "ok"},
			{1600 * ms, "ask", 2, 1, "500ms"}, {2100 * ms, "ask", 2, 1, "ok"},
		}},
		"no promise below what was answered": {0, []step{
			{1000 * ms, "ask", 2, 1, "ok"}, {1000 * ms, "renew", 1, 0, "no"}, {1000 * ms, "renew", 2, 0, "ok"},
			{1100 * ms, "ask", 1, 0, "refuse"},
		}},
		"the same question again": {0, []step{
			{1000 * ms, "ask", 2, 1, "ok"}, {1001 * ms, "ask", 2, 1, "ok"},
		}},
		"what was answered before a restart": {5, []step{
			{1000 * ms, "ask", 4, 3, "refuse"}, {1000 * ms, "renew", 4, 0, "no"}, {1000 * ms, "ask", 5, 4, "ok"},
		}},
		"fenced ends the wait": {0, []step{
			{1000 * ms, "renew", 1, 0, "ok"}, {1001 * ms, "fenced", 1, 0, ""}, {1001 * ms, "ask", 2, 1, "ok"},
		}},
		"fenced ends the wait after a start too": {0, []step{
			{1 * ms, "fenced", 1, 0, ""}, {2 * ms, "ask", 2, 1, "ok"},
		}},
		"an older one's fenced does not": {0, []step{
			{1000 * ms, "renew", 3, 0, "ok"}, {1001 * ms, "fenced", 1, 0, ""}, {1001 * ms, "ask", 4, 3, "599ms"},
		}},
		"nor after a start": {0, []step{
			{1 * ms, "fenced", 1, 0, ""}, {1 * ms, "ask", 4, 3, "599ms"},
		}},
		"who is fenced gets no promise": {0, []step{
			{1000 * ms, "fenced", 3, 0, ""}, {1000 * ms, "renew", 3, 0, "no"}, {1000 * ms, "renew", 4, 0, "ok"},
		}},
		"a primary itself answers only when fenced": {0, []step{
			{1000 * ms, "reign", 3, 0, ""}, {90000 * ms, "ask", 4, 3, "100ms"}, {90001 * ms, "fenced", 3, 0, ""}, {90001 * ms, "ask", 4, 3, "ok"},
		}},
		"or waits like others when it could not fence": {0, []step{
			{1000 * ms, "reign", 3, 0, ""}, {2000 * ms, "deposed", 0, 0, ""}, {2001 * ms, "ask", 4, 3, "599ms"}, {2600 * ms, "ask", 4, 3, "ok"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v := NewVoter(lan, c.promised, origin)
			for i, s := range c.steps {
				if got := s.do(v, origin); got != s.want {
					t.Errorf("step %d, %s at %v: got %q, want %q", i, s.what, s.at, got, s.want)
				}
			}
		})
	}
}

func (s step) do(v *Voter, origin time.Duration) string {
	now := origin + s.at
	switch s.what {
	case "renew":
		if v.Renew(now, s.arg, lan.Lease) {
			return "ok"
		}
		return "no"
	case "ask":
		d := v.Ask(now, s.arg, s.last)
		switch {
		case d.Refuse:
			return "refuse"
		case d.Answer:
			return "ok"
		}
		return d.Wait.String()
	case "fenced":
		v.Fenced(s.arg)
	case "reign":
		v.Reign(s.arg)
	case "deposed":
		v.Deposed(now)
	}
	return ""
}

func TestVoterRefusesLongerLease(t *testing.T) {
	v := NewVoter(lan, 0, 0)
	if v.Renew(time.Second, 1, lan.Lease+1) || !v.Renew(time.Second, 1, lan.Lease-1) {
		t.Error("it promises by another timing than its own")
	}
}

// TestNeverBoth: whatever the times of sending, promising and asking, a primary's
// lease with a sole other voter is over before that voter answers.
func TestNeverBoth(t *testing.T) {
	err := quick.Check(func(sent, delay, pause uint16) bool {
		at := time.Duration(sent) * ms
		promised := at + time.Duration(delay)*ms
		h := NewHolder(1, "a", lan)
		h.SetVoters([]string{"a", "b"})
		v := NewVoter(lan, 0, 0)
		v.Renew(promised, 1, lan.Lease)
		h.Answered("a", promised)
		h.Answered("b", at)
		asked := promised + time.Duration(pause)*ms
		return !v.Ask(asked, 2, 1).Answer || !h.Valid(asked)
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestTimingValidate(t *testing.T) {
	if err := lan.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Timing{{}, {Renewal: 100, Lease: 250, Margin: 100}, {Renewal: 1, Lease: 10, Margin: -1}} {
		if err := bad.Validate(); !errors.Is(err, ErrTiming) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
