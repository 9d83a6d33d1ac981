package node

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/node/guard"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// A node that was stopped between its promotion and the moment at which it lifts
// the fence does not lift it: it asks once more while nobody else can.
func TestNoFenceIsLiftedWithoutLease(t *testing.T) {
	s := newSite(t)
	table(t, s.path)
	s.reign(1)()
	must(t, s.d.fence(t.Context()))
	_, lifted, err := s.d.unfence(t.Context(), func() bool { return false })
	if !errors.Is(err, errDeposed) || lifted {
		t.Errorf("lifted: %v, %v", lifted, err)
	}
	if mark, err := s.d.replica.Mark(); err != nil || mark != sqlitefile.MarkFenced {
		t.Errorf("its mark is %d, %v", mark, err)
	}
	if _, lifted, err = s.d.unfence(t.Context(), func() bool { return true }); err != nil || !lifted {
		t.Errorf("lifted: %v, %v", lifted, err)
	}
}

// The guard knows of a database before its fence is lifted, and until it is up.
func TestGuardIsToldWhatIsOpen(t *testing.T) {
	s := newSite(t)
	c, err := guard.Open(guard.Config{Command: []string{"none"}, Node: "a", Timing: cluster.TimingLAN(), Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	s.d.guard = c
	table(t, s.path)
	s.reign(1)()
	told := func() []guard.Database { return c.Databases() }
	if got := told(); len(got) != 1 || got[0].Name != "app" || got[0].Path != s.path {
		t.Errorf("open in a reign: %v", got)
	}
	must(t, s.d.fence(t.Context()))
	if got := told(); len(got) != 0 {
		t.Errorf("fenced: %v", got)
	}
	_, _, err = s.d.unfence(t.Context(), func() bool {
		if len(told()) != 1 {
			t.Error("the guard does not know what is about to be opened")
		}
		return true
	})
	must(t, err)
	_, err = s.d.settle(t.Context(), began(s.d.txlog.Last("app")), false)
	must(t, err)
	if got := told(); len(got) != 0 {
		t.Errorf("settled: %v", got)
	}
}
