package metrics

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/node/api"
)

func status() api.Status {
	return api.Status{
		Cluster: "c1", Node: "n2", ID: "id2", Role: api.RoleFollower, Epoch: 3, Primary: "n1",
		Nodes: []api.Node{{Voter: true, Alive: true}, {Voter: true, Alive: true}, {Voter: true}, {Alive: true}},
		Databases: []api.Database{
			{Name: "app", Epoch: 3, TXID: "0000000000000123", State: api.StateStreaming, LagMS: 1500, LagTXIDs: 4, SyncedTXID: "0000000000000120", WALBytes: 4152, Quarantined: 2},
			{Name: "new", State: api.StateSeeding},
			{Name: "new", State: api.StateRefused}, // a second file of that name, refused
		},
	}
}

// scrape returns the lines of ours, without comments.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	var ours strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "lsnode_") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

// The names are a contract: dashboards and alerts are written against them.
// LSNODE_GOLDEN=1 writes the file anew.
func TestScrape(t *testing.T) {
	m := New("v1.2.3", status)
	m.RoleChanges.WithLabelValues(string(api.RoleFollower)).Inc()
	m.Failovers.Inc()
	db := m.Database("app")
	db.CapturedCommits.Add(1)
	db.CapturedTxns.Add(2)
	db.CapturedBytes.Add(3)
	db.AppliedCommits.Add(4)
	db.AppliedTxns.Add(5)
	db.AppliedBytes.Add(6)
	db.Gaps.Add(7)
	db.Scans.Add(8)
	db.Repairs.Add(9)
	db.RepairedPages.Add(10)
	db.Mismatches.Add(11)
	db.Quarantined.Add(12)
	db.ReaderStalls.Add(13)
	db.ApplyDelay.Observe(0.001)
	got := scrape(t, m)
	golden := filepath.Join("testdata", "scrape.txt")
	if os.Getenv("LSNODE_GOLDEN") == "1" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("scrape differs from %s:\n%s", golden, got)
	}
}

func TestDatabaseIsForgotten(t *testing.T) {
	m := New("v1", func() api.Status { return api.Status{} })
	old := m.Database("app")
	old.Gaps.Inc()
	if m.Database("app") != old {
		t.Error("a second call returned other metrics")
	}
	const row = `lsnode_gaps_total{database="app"} 1`
	if got := scrape(t, m); !strings.Contains(got, row) {
		t.Errorf("no %s", row)
	}
	m.Forget("app")
	old.Gaps.Inc()
	if got := scrape(t, m); strings.Contains(got, `"app"`) {
		t.Errorf("still there: %s", got)
	}
	if m.Database("app") == old {
		t.Error("the forgotten metrics came back")
	}
}
