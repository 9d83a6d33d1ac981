package consensus_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/secure"
)

// victimDir is set in the environment of a process that is to be killed.
const victimDir = "LSNODE_TEST_CONSENSUS_DIR"

// TestVictim is that process: it applies numbers, from where the directory's
// state ends, and prints each one that was acknowledged.
func TestVictim(t *testing.T) {
	dir := os.Getenv(victimDir)
	if dir == "" {
		t.Skip("is run by TestKilledWhileApplying")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c, state := openAlone(ctx, t, dir)
	for i := len(state.get()); ; i++ {
		if _, err := c.Apply(ctx, []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("ok %d\n", i)
	}
}

// openAlone opens a cluster of one and waits until its state is complete.
func openAlone(ctx context.Context, t *testing.T, dir string) (*consensus.Consensus, *list) {
	t.Helper()
	credentials, err := secure.NewCredentials(secure.NewToken(), "a")
	if err != nil {
		t.Fatal(err)
	}
	m, err := mux.Listen(ctx, mux.Config{Listen: "127.0.0.1:0", Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	state := &list{}
	c, err := consensus.Open(consensus.Config{Dir: dir, Mux: m, Machine: state})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = m.Close()
	})
	if !c.HasState() {
		if err := c.Bootstrap(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Lead(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
	return c, state
}

// TestKilledWhileApplying: what was acknowledged is there after SIGKILL at any
// instant, in order and once.
func TestKilledWhileApplying(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	acknowledged := 0
	for range 4 {
		victim := exec.Command(os.Args[0], "-test.run=^TestVictim$")
		victim.Env = append(os.Environ(), victimDir+"="+dir)
		out, err := victim.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		lines, until := bufio.NewScanner(out), acknowledged+1+random.IntN(100)
		for lines.Scan() {
			if n, err := fmt.Sscanf(lines.Text(), "ok %d", &acknowledged); n != 1 {
				t.Fatalf("victim says %q (%v)", lines.Text(), err)
			}
			if acknowledged == until {
				_ = victim.Process.Kill()
			}
		}
		_ = victim.Wait() // it was killed
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	_, state := openAlone(ctx, t, dir)
	var want []string
	for i := range max(len(state.get()), acknowledged+1) {
		want = append(want, fmt.Sprint(i))
	}
	if got := state.get(); !slices.Equal(got, want) {
		t.Errorf("acknowledged up to %d, and there are %d: %v", acknowledged, len(got), got)
	}
	t.Logf("%d acknowledged, %d there", acknowledged+1, len(state.get()))
}
