package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

func newTestPage(t *testing.T) (node, guard *page) {
	t.Helper()
	node, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", node.file.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if guard, err = openPage(other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(node.close(), guard.close()); err != nil {
			t.Error(err)
		}
	})
	return node, guard
}

func TestPage(t *testing.T) {
	node, guard := newTestPage(t)
	if v, err := guard.read(); err != nil || !reflect.DeepEqual(v, view{}) {
		t.Errorf("before anything was said: %+v, %v", v, err)
	}
	var places tables
	for i := range 20 { // tables that grow and shrink
		want := view{slot: slot{epoch: uint64(i), deadline: time.Duration(i) * time.Second, group: i, leaving: i%2 == 1}}
		want.table = table{Node: "a", Margin: 1, Lease: 2, Voters: []cluster.Peer{{ID: "b", Address: "h:1"}}}
		want.table.Databases = []Database{{Name: "app", Path: "/" + strings.Repeat("x", (i*7919)%5000)}}
		if err := places.write(node, &want.slot, want.table); err != nil {
			t.Fatal(err)
		}
		node.put(want.slot)
		if got, err := guard.read(); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
	guard.setFenced(7)
	guard.setFenced(5)
	guard.setBeat(9)
	if node.fenced() != 7 || node.beat() != 9 {
		t.Errorf("fenced %d, beat %d", node.fenced(), node.beat())
	}
}

// A node that dies while it writes leaves what it had said before.
func TestPageOfDeadWriter(t *testing.T) {
	node, guard := newTestPage(t)
	var places tables
	s := slot{epoch: 1}
	if err := places.write(node, &s, table{Node: "first"}); err != nil {
		t.Fatal(err)
	}
	node.put(s)
	next := slot{epoch: 2}
	if err := places.write(node, &next, table{Node: "second"}); err != nil {
		t.Fatal(err)
	}
	// The words of the other slot, but for the turn.
	at := wordSlots + slotWords*int((node.load(wordTurn)+1)%2)
	node.store(at, 2)
	if v, err := guard.read(); err != nil || v.epoch != 1 || v.table.Node != "first" {
		t.Errorf("%+v, %v", v, err)
	}
}

// A reader sees no mixture of two states, however fast they follow.
func TestPageIsReadWhole(t *testing.T) {
	node, guard := newTestPage(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var places tables
		for i := uint64(1); ; i++ {
			s := slot{epoch: i, deadline: time.Duration(i)}
			if err := places.write(node, &s, table{Node: fmt.Sprint(i)}); err != nil {
				t.Error(err)
				return
			}
			node.put(s)
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 20000 {
		v, err := guard.read()
		if err != nil {
			t.Fatal(err)
		}
		if v.epoch != uint64(v.deadline) || v.epoch != 0 && v.table.Node != fmt.Sprint(v.epoch) {
			t.Fatalf("mixed: %+v", v)
		}
	}
	close(stop)
	wg.Wait()
}

func TestOpenPageRefuses(t *testing.T) {
	for name, content := range map[string][]byte{"short": make([]byte, 100), "of somebody else": make([]byte, pageSize)} {
		path := filepath.Join(t.TempDir(), "page")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openPage(f); !errors.Is(err, errPage) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

func TestDecide(t *testing.T) {
	const ms = time.Millisecond
	open := table{Margin: 100 * ms, Databases: []Database{{Name: "app"}}}
	at := func(deadline time.Duration, t table) view {
		return view{slot: slot{epoch: 3, deadline: deadline}, table: t}
	}
	for name, c := range map[string]struct {
		dead bool
		v    view
		want decision // at 1000 ms
	}{
		"nothing is open":                   {false, at(0, table{}), decision{wait: idleEvery}},
		"the lease goes on for long":        {false, at(9000*ms, open), decision{wait: lookEvery}},
		"the lease goes on for a moment":    {false, at(1010*ms, open), decision{wait: 35 * ms}},
		"the node has a moment to do it":    {false, at(990*ms, open), decision{wait: 15 * ms}},
		"the node did not":                  {false, at(975*ms, open), decision{step: stepFence}},
		"the node died within its lease":    {true, at(9000*ms, open), decision{step: stepFence}},
		"the node died with nothing open":   {true, at(9000*ms, table{}), decision{step: stepLeave}},
		"an only voter":                     {false, at(forever, open), decision{wait: idleEvery}},
		"an only voter died":                {true, at(forever, open), decision{step: stepLeave}},
		"the node leaves":                   {false, view{slot: slot{leaving: true}, table: open}, decision{step: stepLeave}},
		"opened before there was any lease": {false, at(0, open), decision{step: stepFence}},
	} {
		if got := decide(1000*ms, c.dead, c.v); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestLockCovers(t *testing.T) {
	for line, want := range map[string]bool{
		"lock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:9977940 120 120": true,
		"lock:\t2: POSIX  ADVISORY  WRITE 42 fe:00:9977940 100 127": true,
		"lock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:9977940 0 EOF":   true,
		"lock:\t1: OFDLCK ADVISORY  READ  -1 fe:00:9977940 120 120": false,
		"lock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:9977940 121 128": false,
		"lock:\t1: FLOCK  ADVISORY  WRITE":                          false,
		"pos:\t0":                                                   false,
		"":                                                          false,
	} {
		if got := lockCovers(line, sqlitefile.LockWrite); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func FuzzLockCovers(f *testing.F) {
	f.Add("lock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:9977940 120 120")
	f.Fuzz(func(_ *testing.T, line string) { lockCovers(line, sqlitefile.LockWrite) })
}

// What a full pipe does to others it does not do to a guard.
func TestDetachedNeverWaits(t *testing.T) {
	r, w, err := os.Pipe() // that nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	d := Detach(w)
	line := []byte(strings.Repeat("x", 1000))
	began := time.Now()
	for range 2000 {
		if n, err := d.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A nil client is a node without guard.
func TestNilClient(t *testing.T) {
	var c *Client
	c.Lease(1, 1)
	c.Group(1)
	if err := errors.Join(c.Opening(Database{Name: "a"}), c.Closed("a"), c.Voters(nil), c.Close()); err != nil || c.Fenced(1) || c.Status() != (Status{}) {
		t.Error(err)
	}
}
