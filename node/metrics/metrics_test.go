package metrics

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

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

func sources() Sources {
	return Sources{
		Version: "v1.2.3", Status: status,
		Lease: func() float64 { return 0.5 }, LogBytes: func() int64 { return 4096 },
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
	m := New(sources())
	m.RoleChanges.WithLabelValues(string(api.RoleFollower)).Inc()
	m.EarlyDrops.Add(21)
	db := m.Database("app")
	for i, c := range countersOf(db) {
		(*c).Add(float64(i + 1))
	}
	for i, g := range gaugesOf(db) {
		(*g).Set(float64(i) + 0.5)
	}
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
	m := New(sources())
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
	if got := scrape(t, m); strings.Contains(got, row) || strings.Contains(got, `lsnode_wal_kept_seconds{database="app"}`) ||
		strings.Contains(got, `lsnode_apply_seconds_count{database="app"}`) {
		t.Errorf("still there: %s", got)
	}
	if m.Database("app") == old {
		t.Error("the forgotten metrics came back")
	}
}

// What is exposed keeps Prometheus' conventions: units, suffixes, help. A gauge
// must not have a counter's name without _total either: OpenMetrics, which takes
// that suffix off, would have one family twice.
func TestConventions(t *testing.T) {
	m := New(sources())
	m.Database("app")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	problems, err := promlint.New(strings.NewReader(w.Body.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "lsnode_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	families := map[string]bool{}
	for line := range strings.Lines(w.Body.String()) {
		if words := strings.Fields(line); len(words) == 4 && words[1] == "TYPE" && strings.HasPrefix(words[2], "lsnode_") {
			family := strings.TrimSuffix(words[2], "_total")
			if families[family] {
				t.Errorf("two families are called %s", family)
			}
			families[family] = true
		}
	}
	if len(families) < 20 {
		t.Errorf("only %d families were looked at", len(families))
	}
}
