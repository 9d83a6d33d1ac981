package sim

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// schedules is how many are tried. LSNODE_LONG=1 tries more than a hundred
// thousand.
func schedules(short int) int {
	if os.Getenv("LSNODE_LONG") == "1" {
		return 65 * short
	}
	return short
}

const length = 10 * time.Second

// TestNoViolation: whatever the schedule, nothing forbidden happens, and a good
// deal of what is wanted does.
func TestNoViolation(t *testing.T) {
	for _, c := range []struct {
		nodes   int
		changes bool
	}{{3, false}, {5, false}, {4, true}, {5, true}} {
		t.Run(fmt.Sprintf("%d nodes, changes of voters %v", c.nodes, c.changes), func(t *testing.T) {
			t.Parallel()
			var total counts
			n, began := schedules(400), time.Now()
			for seed := range uint64(n) {
				w := newWorld(seed, c.nodes, c.changes, rules{})
				if v := w.run(length); v != "" {
					t.Fatalf("seed %d: %s", seed, v)
				}
				total.add(w.counts)
			}
			t.Logf("%d schedules, %.0f/s: %+v", n, float64(n)/time.Since(began).Seconds(), total)
			if total.reigns < n || total.acked < 10*n || c.changes && total.changed < n {
				t.Error("too little happens for this to mean anything")
			}
		})
	}
}

// TestEachRuleIsNeeded: without any one of the rules the simulation finds a
// violation. Rare ones are looked for in the long selection only.
func TestEachRuleIsNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		nodes   int
		changes bool
		rare    bool
		rules   rules
	}{
		"a renewal's answer is a promise":            {3, false, false, rules{noHold: true}},
		"a restarted voter waits":                    {3, false, true, rules{noStartWait: true}},
		"a primary stops before the end":             {3, false, false, rules{noMargin: true}},
		"the lease counts from the sending":          {3, false, false, rules{countFromReply: true}},
		"fenced is said when it is true":             {3, false, false, rules{fencedTooEarly: true}},
		"the answered epoch is durable":              {3, false, true, rules{forgetPromise: true}},
		"lower epochs than answered are refused":     {3, false, false, rules{acceptLower: true}},
		"a majority answers":                         {3, false, false, rules{anyAnswer: true}},
		"the most advanced position counts":          {3, false, false, rules{ownPosition: true}},
		"only durable positions are acknowledged":    {3, false, false, rules{unsyncedAck: true}},
		"the primary's own fsync comes first":        {3, false, false, rules{unsyncedOwn: true}},
		"tails off the line don't compete":           {3, false, false, rules{noCut: true}},
		"only the newest candidacy can be promoted":  {3, false, true, rules{anyCandidacy: true}},
		"no log is cut by an old history":            {3, false, false, rules{unconfirmed: true}},
		"a sync counts the newest voters":            {5, true, false, rules{syncStart: true}},
		"a lease counts the newest voters":           {5, true, false, rules{leaseStart: true}},
		"a lease counts them at once":                {5, true, true, rules{leaseLate: true}},
		"voters have what was acknowledged":          {5, true, false, rules{anyVoter: true}},
		"a change is of the reign that asked for it": {5, true, true, rules{anyTerm: true}},
		"a change is of what it was checked against": {5, true, false, rules{unguarded: true}},
		// Raft's figure 8. Each of the two keeps it away by itself.
		"only the epoch's own positions are counted, or only what is on the line competes": {3, false, false, rules{olderEpochs: true, noLine: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.rare && os.Getenv("LSNODE_LONG") != "1" {
				t.Skip("takes many thousand schedules: LSNODE_LONG=1")
			}
			for seed := range uint64(schedules(6000)) {
				if v := newWorld(seed, c.nodes, c.changes, c.rules).run(length); v != "" {
					t.Logf("seed %d: %s", seed, v)
					return
				}
			}
			t.Error("no violation was found without the rule")
		})
	}
}

// TestEitherSuffices: a sync could count positions of earlier epochs, since what
// any later candidate considers is on the line that those are on; and the line
// would not be needed for what was acknowledged if only positions of the epoch
// are counted, as in Raft.
func TestEitherSuffices(t *testing.T) {
	for name, r := range map[string]rules{"line": {olderEpochs: true}, "epoch": {noLine: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(schedules(300)) {
				if v := newWorld(seed, 3, false, r).run(length); v != "" {
					t.Fatalf("seed %d: %s", seed, v)
				}
			}
		})
	}
}
