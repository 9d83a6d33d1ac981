package sim

import (
	"os"
	"testing"
	"time"
)

// schedules is how many are tried: enough to find each rule's absence many times
// over. LSNODE_LONG=1 tries fifty times as many.
func schedules(short int) int {
	if os.Getenv("LSNODE_LONG") == "1" {
		return 50 * short
	}
	return short
}

const length = 10 * time.Second

// TestNoViolation: whatever the schedule, nothing forbidden happens, and a good
// deal of what is wanted does.
func TestNoViolation(t *testing.T) {
	for _, size := range []int{3, 5} {
		reigns, acked := 0, 0
		n := schedules(1000)
		for seed := range uint64(n) {
			w := newWorld(seed, size, rules{})
			if v := w.run(length); v != "" {
				t.Fatalf("%d nodes, seed %d: %s", size, seed, v)
			}
			reigns += w.reigns
			acked += len(w.acked)
		}
		t.Logf("%d nodes: %d schedules, %d reigns, %d acknowledged positions", size, n, reigns, acked)
		if reigns < n || acked < 10*n {
			t.Errorf("%d nodes: too little happens for this to mean anything", size)
		}
	}
}

// TestEachRuleIsNeeded: without any one of the rules the simulation finds a
// violation.
func TestEachRuleIsNeeded(t *testing.T) {
	for name, r := range map[string]rules{
		"a renewal's answer is a promise":           {noHold: true},
		"a restarted voter waits":                   {noStartWait: true},
		"a primary stops before the end":            {noMargin: true},
		"the lease counts from the sending":         {countFromReply: true},
		"fenced is said when it is true":            {fencedTooEarly: true},
		"the answered epoch is durable":             {forgetPromise: true},
		"lower epochs than answered are refused":    {acceptLower: true},
		"a majority answers":                        {anyAnswer: true},
		"the most advanced position counts":         {ownPosition: true},
		"only durable positions are acknowledged":   {unsyncedAck: true},
		"tails off the line don't compete":          {noCut: true},
		"a reign begins what it ships":              {neverBegin: true},
		"only the newest candidacy can be promoted": {anyCandidacy: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(schedules(6000)) {
				if v := newWorld(seed, 3, r).run(length); v != "" {
					t.Logf("seed %d: %s", seed, v)
					return
				}
			}
			t.Error("no violation was found without the rule")
		})
	}
}
