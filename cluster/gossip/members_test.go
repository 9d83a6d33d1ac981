package gossip

import (
	"log/slog"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func heard(name, meta string, port uint16) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.IPv4(10, 0, 0, 1), Port: port, Meta: []byte(meta)}
}

// TestNewestStartCounts: whatever the order in which starts and deaths are heard.
func TestNewestStartCounts(t *testing.T) {
	first, second := heard(startName("n", 100), `{"a":"first:1"}`, 1), heard(startName("n", 200), `{"a":"second:1"}`, 2)
	for _, c := range []struct {
		what  string
		play  func(*members)
		want  string
		alive bool
	}{
		{"one", func(m *members) { m.NotifyJoin(first) }, "first:1", true},
		{"restart", func(m *members) { m.NotifyJoin(first); m.NotifyJoin(second) }, "second:1", true},
		{"heard late", func(m *members) { m.NotifyJoin(second); m.NotifyJoin(first) }, "second:1", true},
		{"former self dies", func(m *members) { m.NotifyJoin(first); m.NotifyJoin(second); m.NotifyLeave(first) }, "second:1", true},
		{"both die", func(m *members) {
			m.NotifyJoin(first)
			m.NotifyJoin(second)
			m.NotifyLeave(first)
			m.NotifyLeave(second)
		}, "second:1", false},
		{"the clock went back", func(m *members) { m.NotifyJoin(second); m.NotifyLeave(second); m.NotifyJoin(first) }, "first:1", true},
		{"unknown one dies", func(m *members) { m.NotifyJoin(first); m.NotifyLeave(second) }, "first:1", true},
	} {
		m := newMembers("self", meta{}, slog.New(slog.DiscardHandler))
		c.play(m)
		got, ok := m.one("n")
		if !ok || got.Address != c.want || got.Alive != c.alive {
			t.Errorf("%s: %+v", c.what, got)
		}
		if n := len(m.get()); n != 1 {
			t.Errorf("%s: %d nodes", c.what, n)
		}
	}
}

func TestParseStart(t *testing.T) {
	for name, want := range map[string]bool{
		startName("n", 1): true, startName("n", 0): true, "": false, "n": false, "n.": false, ".1": false, "n.!": false,
	} {
		if _, ok := parseStart(heard(name, "", 7)); ok != want {
			t.Errorf("%q: %v", name, ok)
		}
	}
	for meta, want := range map[string]Member{
		"":         {ID: "n", Address: "10.0.0.1:7", Alive: true},
		"rubbish":  {ID: "n", Address: "10.0.0.1:7", Alive: true},
		`{"n":7}`:  {ID: "n", Address: "10.0.0.1:7", Alive: true},
		`{"z":7}`:  {ID: "n", Address: "10.0.0.1:7", Alive: true},
		`{"a":""}`: {ID: "n", Address: "10.0.0.1:7", Alive: true},
		`{"n":"x","a":"h:1","h":"h:2","v":"v1","r":"primary","e":9}`: {
			ID: "n", Name: "x", Address: "h:1", HTTP: "h:2", Version: "v1", Role: "primary", Epoch: 9, Alive: true,
		},
	} {
		got, ok := parseStart(heard(startName("n", 1), meta, 7))
		if !ok || !reflect.DeepEqual(got.member, want) {
			t.Errorf("%s: %+v, want %+v", meta, got.member, want)
		}
	}
}

func TestMetaStaysWithinItsBound(t *testing.T) {
	m := newMembers("self", meta{Name: strings.Repeat("n", 300)}, slog.New(slog.DiscardHandler))
	if err := m.self.check(); err != nil {
		t.Fatal(err)
	}
	m.say(strings.Repeat("x", maxRole), 1<<63)
	if got := len(m.NodeMeta(memberlist.MetaMaxSize)); got == 0 || got > memberlist.MetaMaxSize {
		t.Errorf("%d bytes", got)
	}
	if m.say(strings.Repeat("x", maxRole), 1<<63) {
		t.Error("the same is news")
	}
	if err := (meta{Name: strings.Repeat("n", 500)}).check(); err == nil {
		t.Error("too much was accepted")
	}
}
