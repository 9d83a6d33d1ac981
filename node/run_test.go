package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

// running is a whole node in this process.
type running struct {
	t    *testing.T
	url  string
	stop func()
}

// start runs a node until stop, or the end of the test.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	cfg.Listen, cfg.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", cfg.Name, err)
			}
		case <-time.After(soon):
			t.Errorf("%s did not stop", cfg.Name)
		}
	}
	t.Cleanup(stop)
	r := &running{t: t, stop: stop}
	r.until("address", func() bool {
		address, err := api.ReadAddress(cfg.DataDir)
		r.url = "http://" + address
		return err == nil
	})
	return r
}

func (r *running) until(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(soon); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within %s\n%s", what, soon, r.get("/v1/status"))
		}
	}
}

// get returns the body of an answer, whatever its status.
func (r *running) get(path string) string {
	r.t.Helper()
	response, err := http.Get(r.url + path)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(r.t, err)
	return string(body)
}

// metric returns a sample's value, -1 if there is none.
func (r *running) metric(sample string) float64 {
	r.t.Helper()
	for line := range strings.Lines(r.get("/metrics")) {
		if name, text, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == sample {
			n, err := strconv.ParseFloat(text, 64)
			must(r.t, err)
			return n
		}
	}
	return -1
}

// What a primary and a follower do is to be seen in their metrics.
func TestMetricsAreCounted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	table(t, path)
	n1 := start(t, Config{Name: "n1", DataDir: filepath.Join(dir, "n1"), Databases: []Database{{Path: path}}})
	n1.until("reign", func() bool { return n1.metric(`lsnode_database_state{database="app",state="primary"}`) == 1 })
	token, err := os.ReadFile(filepath.Join(dir, "n1", "cluster.token"))
	must(t, err)
	n2 := start(t, Config{
		Name: "n2", DataDir: filepath.Join(dir, "n2"), Nonvoter: true, Token: strings.TrimSpace(string(token)), Peers: []string{n1.peer()},
	})
	n2.until("stream", func() bool { return n2.metric(`lsnode_database_state{database="app",state="streaming"}`) == 1 })
	app := newApplication(t, path)
	for row := range 20 {
		app.insert(row)
	}
	n2.until("rows", func() bool { return n2.metric(`lsnode_database_txid{database="app"}`) == 21 })
	for _, want := range []struct {
		n        *running
		sample   string
		min, max float64
	}{
		{n1, `lsnode_captured_commits_total{database="app"}`, 20, 20},
		{n1, `lsnode_captured_transactions_total{database="app"}`, 1, 20},
		{n1, `lsnode_captured_pages_total{database="app"}`, 1, 100},
		{n1, `lsnode_role_changes_total{role="primary"}`, 1, 1},
		{n1, `lsnode_lease_remaining_seconds`, math.MaxFloat64, math.Inf(1)},
		{n1, `lsnode_log_bytes`, 100, 1e9},
		{n1, `lsnode_scans_total{database="app"}`, 1, 2},
		{n2, `lsnode_applied_commits_total{database="app"}`, 20, 20},
		{n2, `lsnode_applied_transactions_total{database="app"}`, 1, 20},
		{n2, `lsnode_apply_seconds_count{database="app"}`, 1, 20},
		{n2, `lsnode_role_changes_total{role="follower"}`, 1, 5},
		{n2, `lsnode_role_changes_total{role="primary"}`, 0, 0},
		{n2, `lsnode_lease_remaining_seconds`, 0, 0},
		{n2, `lsnode_log_bytes`, 100, 1e9},
		{n2, `lsnode_captured_commits_total{database="app"}`, 0, 0},
	} {
		var got float64
		want.n.until(want.sample, func() bool {
			got = want.n.metric(want.sample)
			return got >= want.min || got > want.max
		})
		if got > want.max {
			t.Errorf("%s is %v, want at most %v", want.sample, got, want.max)
		}
	}
}

// peer returns the node's address for others.
func (r *running) peer() string {
	r.t.Helper()
	_, rest, _ := strings.Cut(r.get("/v1/status"), `"address":"`)
	address, _, _ := strings.Cut(rest, `"`)
	return address
}

// Files that appear in a watched directory are taken, one that is no database is
// refused with its reason, and the others are not disturbed.
func TestFilesAppear(t *testing.T) {
	dir := t.TempDir()
	watched := filepath.Join(dir, "watched")
	must(t, os.Mkdir(watched, 0o755))
	n := start(t, Config{Name: "n1", DataDir: filepath.Join(dir, "n1"), DBDir: watched})
	state := func(name, state string) bool {
		return n.metric(`lsnode_database_state{database="`+name+`",state="`+state+`"}`) == 1
	}
	table(t, filepath.Join(watched, "first.db"))
	n.until("first", func() bool { return state("first", "primary") })
	must(t, os.WriteFile(filepath.Join(watched, "letter.db"), []byte(strings.Repeat("Dear Sir or Madam, ", 500)), 0o644))
	n.until("letter", func() bool { return state("letter", "refused") })
	table(t, filepath.Join(watched, "second.sqlite"))
	n.until("second", func() bool { return state("second", "primary") })
	if !state("first", "primary") {
		t.Error("the first database was disturbed")
	}
	sqlite(t, filepath.Join(watched, "first.db"), "INSERT INTO t VALUES(1)")
	n.until("commit", func() bool { return n.metric(`lsnode_database_txid{database="first"}`) == 2 })
	if status := n.get("/v1/status"); !strings.Contains(status, "it is not a SQLite database") {
		t.Errorf("no reason in %s", status)
	}
	n.stop()
	if out := sqlite(t, filepath.Join(watched, "first.db"), "INSERT INTO t VALUES(2); SELECT count(*) FROM t"); out != "2" {
		t.Errorf("the only voter's database after its end: %s", out)
	}
}

func TestRunRefusesAtOnce(t *testing.T) {
	if err := Run(t.Context(), Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("without a data dir: %v", err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "app.db")
	table(t, path)
	cfg := Config{Name: "n1", DataDir: filepath.Join(dir, "n1"), Databases: []Database{{Path: path}}, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := Run(ctx, cfg); err == nil || ctx.Err() != nil {
		t.Errorf("a second node on one data dir: %v", err)
	}
}
