package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// must applies commands that are accepted.
func must(t *testing.T, s *State, commands ...Command) *State {
	t.Helper()
	for _, c := range commands {
		next, err := try(t, s, c)
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	return s
}

// try applies one, and checks that the old state did not change.
func try(t *testing.T, s *State, c Command) (*State, error) {
	t.Helper()
	before, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	next, _, refused := Apply(s, entry)
	after, err := s.Encode()
	if err != nil || string(after) != string(before) {
		t.Errorf("the state that was handed out has changed\nfrom %s\nto   %s", before, after)
	}
	if refused != nil && next != s {
		t.Error("a refused command has changed the state")
	}
	return next, refused
}

func node(name string) Command {
	return Command{PutNode: &Node{ID: "id-" + name, Name: name, Address: name + ":7400"}}
}

func stand(name string) Command { return Command{Candidacy: &Candidacy{Node: "id-" + name}} }

func promote(epoch uint64, name string, start Position) Command {
	return Command{Promote: &Promote{Epoch: epoch, Node: "id-" + name, Start: map[string]Position{"app": start}}}
}

// cluster is a state with three nodes and a database that has no history yet.
func cluster(t *testing.T) *State {
	return must(t, New(), Command{Init: &Init{ClusterID: "c1"}}, node("n1"), node("n2"), node("n3"),
		Command{AddDatabase: &AddDatabase{Name: "app"}})
}

func TestElections(t *testing.T) {
	s := must(t, cluster(t),
		stand("n1"), promote(1, "n1", Position{}),
		stand("n2"), stand("n3"), promote(3, "n3", pos(1, 5)))
	want := []Reign{
		{Epoch: 1, Node: "id-n1", Start: map[string]Position{"app": {}}},
		{Epoch: 3, Node: "id-n3", Start: map[string]Position{"app": pos(1, 5)}},
	}
	if !reflect.DeepEqual(s.History, want) || s.Primary.Node != "id-n3" || s.Primary.Epoch != 3 || s.Epoch != 3 {
		t.Errorf("got %+v", s)
	}
}

func TestRefusals(t *testing.T) {
	base := must(t, cluster(t), stand("n1"), promote(1, "n1", Position{}), stand("n2"), stand("n3"))
	for name, c := range map[string]struct {
		command Command
		want    error
	}{
		"an old candidacy":              {promote(2, "n2", pos(1, 5)), ErrStaleEpoch},
		"an epoch of someone else":      {promote(3, "n2", pos(1, 5)), ErrStaleEpoch},
		"an epoch that nobody stood in": {promote(4, "n3", pos(1, 5)), ErrStaleEpoch},
		"a start off the line":          {promote(3, "n3", pos(2, 5)), ErrOffLine},
		"a start in its own epoch":      {promote(3, "n3", pos(3, 5)), ErrOffLine},
		"candidacy of a stranger":       {stand("n9"), ErrUnknownNode},
		"removal of a stranger":         {Command{RemoveNode: &RemoveNode{ID: "id-n9"}}, ErrUnknownNode},
		"another cluster":               {Command{Init: &Init{ClusterID: "c2"}}, ErrOtherCluster},
		"a taken name":                  {Command{PutNode: &Node{ID: "id-x", Name: "n1", Address: "x:1"}}, ErrNameTaken},
		"a bad name":                    {Command{PutNode: &Node{ID: "id-x", Name: "a b", Address: "x:1"}}, ErrInvalid},
		"no address":                    {Command{PutNode: &Node{ID: "id-x", Name: "x"}}, ErrInvalid},
		"a bad database":                {Command{AddDatabase: &AddDatabase{Name: ".."}}, ErrInvalid},
		"a database in an old reign":    {Command{AddDatabase: &AddDatabase{Name: "b", Epoch: 7}}, ErrStaleEpoch},
		"archive of a stranger":         {Command{Archive: &Archive{Database: "b", Progress: json.RawMessage(`1`)}}, ErrInvalid},
		"nothing":                       {Command{}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := try(t, base, c.command); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	for name, entry := range map[string]struct {
		data string
		want error
	}{
		"garbage":           {"\x00\x01", ErrInvalid},
		"a later version":   {`{"v":2,"init":{"clusterID":"c1"}}`, ErrVersion},
		"no version":        {`{"init":{"clusterID":"c1"}}`, ErrVersion},
		"an unknown kind":   {`{"v":1,"dance":{}}`, ErrInvalid},
		"a broken position": {`{"v":1,"promote":{"start":{"app":"1/2/3"}}}`, ErrInvalid},
	} {
		if next, _, err := Apply(base, []byte(entry.data)); !errors.Is(err, entry.want) || next != base {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEmptyEndsNoLine: a primary without data leaves the line where it was, so
// that who has the data may come back, until it begins the database itself.
func TestEmptyEndsNoLine(t *testing.T) {
	s := must(t, cluster(t), stand("n1"), promote(1, "n1", Position{}), stand("n2"), promote(2, "n2", Position{}))
	if _, ok := s.Line().Start("app", 2); ok || !s.Line().OnLine("app", pos(1, 9)) {
		t.Errorf("history is %v", s.History)
	}
	back := must(t, s, stand("n1"), promote(3, "n1", pos(1, 9)))
	if got, _ := back.Line().Start("app", 3); got != pos(1, 9) {
		t.Errorf("it comes back at %v", got)
	}
	begun := must(t, s, Command{AddDatabase: &AddDatabase{Name: "app", Epoch: 2}}, Command{AddDatabase: &AddDatabase{Name: "app", Epoch: 2}})
	if got, ok := begun.Line().Start("app", 2); !ok || !got.IsZero() || begun.Line().OnLine("app", pos(1, 9)) {
		t.Errorf("history is %v", begun.History)
	}
	if _, err := try(t, begun, Command{AddDatabase: &AddDatabase{Name: "app", Epoch: 1}}); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("begun in a reign that is over: %v", err)
	}
	if len(begun.Databases) != 1 {
		t.Errorf("databases are %v", begun.Databases)
	}
}

func TestEpochOnlyGrows(t *testing.T) {
	s := must(t, cluster(t), Command{RaiseEpoch: &RaiseEpoch{Floor: 40}}, Command{RaiseEpoch: &RaiseEpoch{Floor: 4}}, stand("n1"))
	if s.Epoch != 41 {
		t.Errorf("epoch is %d", s.Epoch)
	}
	raised := must(t, s, Command{RaiseEpoch: &RaiseEpoch{Floor: 50}})
	if _, err := try(t, raised, promote(41, "n1", Position{})); !errors.Is(err, ErrStaleEpoch) {
		t.Errorf("promoted below the floor: %v", err)
	}
	s = must(t, raised, Command{Candidacy: &Candidacy{Node: "id-n2", Floor: 60}}, promote(61, "n2", Position{}))
	if s.Primary.Epoch != 61 {
		t.Errorf("primary is %+v", s.Primary)
	}
}

func TestNodes(t *testing.T) {
	joined := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := must(t, New(),
		Command{PutNode: &Node{ID: "b", Name: "n2", Address: "h:1", Joined: joined}},
		Command{PutNode: &Node{ID: "a", Name: "n1", Address: "h:2"}},
		Command{PutNode: &Node{ID: "b", Name: "n2", Address: "h:3", Nonvoter: true}})
	if n, ok := s.Find("n2"); !ok || n.Address != "h:3" || !n.Nonvoter || !n.Joined.Equal(joined) {
		t.Errorf("n2 is %+v", n)
	}
	if m := s.Members(); len(m) != 2 || m[0].Name != "n1" {
		t.Errorf("members are %v", m)
	}
	s = must(t, s, Command{RemoveNode: &RemoveNode{ID: "b"}}, Command{PutNode: &Node{ID: "c", Name: "n2", Address: "h:4"}})
	if n, _ := s.Find("n2"); n.ID != "c" {
		t.Errorf("n2 is %+v", n)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := must(t, cluster(t), stand("n1"), promote(1, "n1", Position{}), Command{AddDatabase: &AddDatabase{Name: "rare", Epoch: 1}})
	txid := uint64(0)
	for range MaxHistory + 50 {
		s = must(t, s, stand("n1"), promote(s.Epoch+1, "n1", pos(s.Epoch, txid)))
		txid++
	}
	if len(s.History) > MaxHistory+1 {
		t.Errorf("%d reigns", len(s.History))
	}
	if got, ok := s.Line().Start("rare", 1); !ok || !got.IsZero() {
		t.Error("the only start of a database was dropped")
	}
	if !s.Line().OnLine("app", pos(s.Epoch, txid+5)) || !s.Line().OnLine("rare", pos(1, 7)) {
		t.Error("the line is broken")
	}
}

// TestManyDatabases: the history of thousands of databases fits in a message.
func TestManyDatabases(t *testing.T) {
	s := must(t, cluster(t))
	for range 30 {
		start := map[string]Position{}
		for i := range 3000 {
			start[fmt.Sprintf("database-%d", i)] = pos(s.Epoch, 7)
			if s.Epoch == 0 {
				start[fmt.Sprintf("database-%d", i)] = Position{}
			}
		}
		s = must(t, s, stand("n1"), Command{Promote: &Promote{Epoch: s.Epoch + 1, Node: "id-n1", Start: start}})
	}
	data, err := json.Marshal(s.Line())
	if err != nil || len(data) > 3<<20 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if !s.Line().OnLine("database-2999", pos(s.Epoch, 8)) {
		t.Error("the line is broken")
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := must(t, cluster(t), stand("n1"), promote(1, "n1", Position{}),
		Command{Archive: &Archive{Database: "app", Progress: json.RawMessage(`{"txid":5}`)}})
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil || fmt.Sprint(back) != fmt.Sprint(s) {
		t.Errorf("got  %v, %v\nwant %v", back, err, s)
	}
	if _, err := Decode([]byte(`{"version":2}`)); !errors.Is(err, ErrVersion) {
		t.Errorf("a later version: %v", err)
	}
	if _, err := Decode([]byte(`{`)); err == nil {
		t.Error("garbage was decoded")
	}
}

func FuzzApply(f *testing.F) {
	for _, c := range []Command{node("n1"), stand("n1"), promote(1, "n1", pos(1, 1)), {AddDatabase: &AddDatabase{Name: "app", Epoch: 1}}} {
		data, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		s := New()
		for range 2 {
			next, _, err := Apply(s, entry)
			if err == nil && next.Epoch < s.Epoch {
				t.Error("the epoch went back")
			}
			s = next
		}
		if _, err := s.Encode(); err != nil {
			t.Errorf("what was accepted can't be encoded: %v", err)
		}
	})
}
