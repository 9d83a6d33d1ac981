package consensus

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/secure"
)

var errFull = errors.New("no space left on device")

// fullDisk is a stable store that can't be written to for a while.
type fullDisk struct {
	*raft.InmemStore
	refusals atomic.Int32 // how many writes still go wrong
}

func (d *fullDisk) SetUint64(key []byte, value uint64) error {
	if d.refusals.Add(-1) >= 0 {
		return errFull
	}
	return d.InmemStore.SetUint64(key, value)
}

func TestWritesAreRepeated(t *testing.T) {
	disk := &fullDisk{InmemStore: raft.NewInmemStore()}
	closed := make(chan struct{})
	stable := &patientStable{StableStore: disk, logger: slog.New(slog.DiscardHandler), closed: closed}
	disk.refusals.Store(2)
	if err := stable.SetUint64([]byte(keyTerm), 7); err != nil {
		t.Error(err)
	}
	if got, err := stable.GetUint64([]byte(keyTerm)); got != 7 || err != nil {
		t.Errorf("term is %d, %v", got, err)
	}
	disk.refusals.Store(1 << 30)
	close(closed)
	if err := stable.SetUint64([]byte("LastVoteTerm"), 8); !errors.Is(err, errFull) {
		t.Errorf("vote: %v", err)
	}
	if err := stable.SetUint64([]byte(keyTerm), 8); err != nil {
		t.Errorf("term: %v", err)
	}
}

// TestTermIsRaftsName: the key that is let pass is the one that Raft uses.
func TestTermIsRaftsName(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	credentials, err := secure.NewCredentials(secure.NewToken(), "a")
	if err != nil {
		t.Fatal(err)
	}
	m, err := mux.Listen(ctx, mux.Config{Listen: "127.0.0.1:0", Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c, err := Open(Config{Dir: t.TempDir(), Mux: m, Machine: &sum{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Bootstrap(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lead(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := c.store.GetUint64([]byte(keyTerm)); err != nil || got != c.Status().Term {
		t.Errorf("term on disk is %d, %v; want %d", got, err, c.Status().Term)
	}
}
