package state

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"testing"
)

func pos(epoch, txid uint64) Position {
	return Position{Epoch: epoch, TXID: txid, Checksum: 1<<63 | txid*1000}
}

// other is a position of the same epoch and TXID with other content.
func other(epoch, txid uint64) Position {
	p := pos(epoch, txid)
	p.Checksum++
	return p
}

func reign(epoch uint64, start Position) Reign {
	return Reign{Epoch: epoch, Node: "n1", Start: map[string]Position{"app": start}}
}

// The history of these tests: epoch 1 begins the database and counts up to TXID
// 10; epoch 2 was promoted at 10 and nobody ever went on from it; epoch 4 went on
// from 1/10 up to 25; epoch 5 did not begin it; epoch 7 is open.
func history() Line {
	return Line{Reigns: []Reign{
		reign(1, Position{}), reign(2, pos(1, 10)), reign(4, pos(1, 10)),
		{Epoch: 5, Node: "n2"}, reign(7, pos(4, 25)),
	}}
}

func TestSegments(t *testing.T) {
	want := []Segment{
		{Epoch: 7, From: pos(4, 25), To: math.MaxUint64},
		{Epoch: 4, From: pos(1, 10), To: 25, End: pos(4, 25)},
		{Epoch: 1, To: 10, End: pos(1, 10)},
	}
	if got := history().Segments("app"); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := history().Segments("unknown"); got != nil {
		t.Errorf("of an unknown database: %v", got)
	}
	// Older history was dropped: what it went on from is known, no more.
	trimmed := Line{Reigns: history().Reigns[2:]}
	want = append(want[:2:2], Segment{Epoch: 1, To: 10, End: pos(1, 10)})
	if got := trimmed.Segments("app"); !reflect.DeepEqual(got, want) {
		t.Errorf("trimmed: got  %v\nwant %v", got, want)
	}
	// Begun from nothing a second time.
	again := Line{Reigns: append(history().Reigns, reign(8, Position{}))}
	want = []Segment{{Epoch: 8, To: math.MaxUint64}}
	if got := again.Segments("app"); !reflect.DeepEqual(got, want) {
		t.Errorf("begun again: got  %v\nwant %v", got, want)
	}
}

func TestOnLine(t *testing.T) {
	for _, c := range []struct {
		p    Position
		want bool
	}{
		{Position{}, true},
		{pos(1, 1), true}, {pos(1, 10), true}, {pos(1, 11), false}, {other(1, 10), false},
		{pos(2, 10), false}, {pos(2, 12), false}, {pos(3, 10), false},
		{pos(4, 9), false}, {pos(4, 10), true}, {other(4, 10), false}, {pos(4, 25), true}, {other(4, 25), false}, {pos(4, 26), false},
		{pos(5, 25), false}, {pos(7, 25), true}, {pos(7, 1000), true}, {pos(8, 1000), false},
	} {
		if got := history().OnLine("app", c.p); got != c.want {
			t.Errorf("%v: %v", c.p, got)
		}
	}
	if !history().OnLine("unknown", pos(9, 9)) || !(Line{}).OnLine("app", pos(9, 9)) {
		t.Error("something is known against a database that no reign has begun")
	}
}

// logOf is a log with positions as given.
func logOf(log ...Position) Lookup {
	return func(epoch, txid uint64) (Position, bool) {
		for _, p := range slices.Backward(log) {
			if p.Compare(Position{Epoch: epoch, TXID: txid}) <= 0 {
				return p, true
			}
		}
		return Position{}, false
	}
}

func TestCut(t *testing.T) {
	for name, c := range map[string]struct {
		log  []Position
		want Position
	}{
		"empty":                          {nil, Position{}},
		"behind":                         {[]Position{pos(1, 1), pos(1, 2)}, pos(1, 2)},
		"at a branch":                    {[]Position{pos(1, 9), pos(1, 10)}, pos(1, 10)},
		"beyond a branch":                {[]Position{pos(1, 9), pos(1, 10), pos(1, 11), pos(1, 12)}, pos(1, 10)},
		"coalesced over a branch":        {[]Position{pos(1, 9), pos(1, 12)}, pos(1, 9)},
		"nothing but a tail":             {[]Position{pos(1, 11)}, Position{}},
		"on a branch that died":          {[]Position{pos(1, 9), pos(1, 10), pos(2, 10), pos(2, 11)}, pos(1, 10)},
		"a tail, then a dead branch":     {[]Position{pos(1, 9), pos(1, 10), pos(2, 10), pos(2, 30)}, pos(1, 10)},
		"in the middle of an epoch":      {[]Position{pos(1, 10), pos(4, 10), pos(4, 20)}, pos(4, 20)},
		"beyond the end of an epoch":     {[]Position{pos(1, 10), pos(4, 10), pos(4, 20), pos(4, 30)}, pos(4, 20)},
		"other content at a branch":      {[]Position{pos(1, 8), pos(1, 9), other(1, 10)}, pos(1, 9)},
		"other content at a beginning":   {[]Position{pos(1, 9), pos(1, 10), other(4, 10), other(4, 11)}, other(4, 11)},
		"other content at the beginning": {[]Position{pos(1, 9), pos(1, 10), other(4, 10)}, pos(1, 10)},
		"up to date":                     {[]Position{pos(1, 10), pos(4, 25), pos(7, 25), pos(7, 26)}, pos(7, 26)},
		"newer than the history":         {[]Position{pos(4, 25), pos(7, 25), pos(7, 26), pos(8, 26)}, pos(7, 26)},
		"from before a gap in the log":   {[]Position{pos(7, 40)}, pos(7, 40)},
	} {
		t.Run(name, func(t *testing.T) {
			var last Position
			if len(c.log) > 0 {
				last = c.log[len(c.log)-1]
			}
			if got := history().Cut("app", last, logOf(c.log...)); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if got := history().Cut("unknown", last, logOf(c.log...)); got != last {
				t.Errorf("of a database that no reign has begun: %v", got)
			}
		})
	}
}

// TestNotBegunYet: what the newest reign ships of a database counts although the
// line is older than the database's beginning in it, and what an older reign that
// did not begin it is said to have does not.
func TestNotBegunYet(t *testing.T) {
	line := Line{Reigns: append(history().Reigns, Reign{Epoch: 8, Node: "n3"})}
	for _, log := range [][]Position{
		{pos(8, 1), pos(8, 2)},    // begun in the newest reign
		{pos(4, 25), pos(7, 200)}, // as it was before
	} {
		last := log[len(log)-1]
		if got := line.Cut("app", last, logOf(log...)); got != last || !line.OnLine("app", last) {
			t.Errorf("%v: cut to %v, on line %v", log, got, line.OnLine("app", last))
		}
	}
	if line.OnLine("app", pos(5, 25)) {
		t.Error("an older reign has shipped what it never began")
	}
	if got := line.Cut("app", pos(9, 3), logOf(pos(7, 25), pos(8, 2), pos(9, 3))); got != pos(8, 2) {
		t.Errorf("newer than the history: cut to %v", got)
	}
}

// TestCutIsOnLine: whatever log, what is left is on the line, and nothing that is
// on the line and in the log was cut off.
func TestCutIsOnLine(t *testing.T) {
	var all []Position
	for epoch := uint64(1); epoch <= 8; epoch++ {
		for _, txid := range []uint64{0, 9, 10, 11, 24, 25, 26} {
			all = append(all, pos(epoch, txid), other(epoch, txid))
		}
	}
	for _, line := range []Line{history(), {Reigns: append(history().Reigns, Reign{Epoch: 8})}} {
		cutIsOnLine(t, line, all)
	}
}

func cutIsOnLine(t *testing.T, line Line, all []Position) {
	t.Helper()
	for i, a := range all {
		for j, b := range all[i:] {
			for _, c := range all[i+j:] {
				if a.Compare(b) >= 0 || b.Compare(c) >= 0 {
					continue
				}
				log := []Position{a, b, c}
				got := line.Cut("app", c, logOf(log...))
				if !line.OnLine("app", got) {
					t.Fatalf("%v is cut to %v", log, got)
				}
				for _, p := range log {
					if p.Compare(got) > 0 && line.OnLine("app", p) {
						t.Fatalf("%v is cut to %v although %v is on the line", log, got, p)
					}
				}
			}
		}
	}
}

func TestBranchPointAndStart(t *testing.T) {
	line := history()
	for epoch, want := range map[uint64]Position{1: pos(1, 10), 4: pos(4, 25)} {
		if got, ok := line.BranchPoint("app", epoch); !ok || got != want {
			t.Errorf("epoch %d: %v, %v", epoch, got, ok)
		}
	}
	for _, epoch := range []uint64{0, 2, 3, 5, 7, 9} {
		if got, ok := line.BranchPoint("app", epoch); ok {
			t.Errorf("epoch %d: %v", epoch, got)
		}
	}
	if got, ok := line.Start("app", 4); !ok || got != pos(1, 10) {
		t.Errorf("start of 4: %v, %v", got, ok)
	}
	if _, ok := line.Start("app", 5); ok {
		t.Error("epoch 5 has a start")
	}
	if got := line.Newest(); got != 7 {
		t.Errorf("newest: %d", got)
	}
}

func TestPositionText(t *testing.T) {
	p := Position{Epoch: 3, TXID: 0x123, Checksum: 0xfedcba9876543210}
	data, err := json.Marshal(map[string]Position{"app": p})
	if want := `{"app":"0000000000000003/0000000000000123/fedcba9876543210"}`; err != nil || string(data) != want {
		t.Errorf("got %s, %v", data, err)
	}
	var back map[string]Position
	if err := json.Unmarshal(data, &back); err != nil || back["app"] != p {
		t.Errorf("got %v, %v", back, err)
	}
}

func FuzzPosition(f *testing.F) {
	f.Add("0000000000000003/0000000000000123/fedcba9876543210")
	f.Add("")
	f.Add("0000000000000003-0000000000000123-fedcba9876543210")
	f.Fuzz(func(t *testing.T, s string) {
		var p Position
		if p.UnmarshalText([]byte(s)) != nil {
			return
		}
		var q Position
		if err := q.UnmarshalText([]byte(p.String())); err != nil || q != p {
			t.Errorf("%q: %v, then %v, %v", s, p, q, err)
		}
	})
}
