package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
)

// fakeNode stands in for a running node behind real HTTP.
type fakeNode struct {
	address string
	dataDir string
	wait    func(ctx context.Context, db string) error
	change  func(what string) error

	mu      sync.Mutex
	status  api.Status // guarded by mu
	changes []string   // guarded by mu
}

func (n *fakeNode) Ready() error { return nil }

func (n *fakeNode) Status(context.Context) api.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

func (n *fakeNode) Wait(ctx context.Context, db string, _ walstream.Position) error {
	return n.wait(ctx, db)
}

func (n *fakeNode) do(what string) error {
	n.mu.Lock()
	n.changes = append(n.changes, what)
	n.mu.Unlock()
	if n.change == nil {
		return nil
	}
	return n.change(what)
}

func (n *fakeNode) done() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changes
}

func (n *fakeNode) Switchover(_ context.Context, to string) error { return n.do("switchover " + to) }
func (n *fakeNode) Sync(_ context.Context, db string) (api.Synced, error) {
	return api.Synced{Bookmark: "lsb1-x", TXID: "0000000000000007", Nodes: []string{"n1", "n2"}}, n.do("sync " + db)
}
func (n *fakeNode) Verify(_ context.Context, db string, deep bool) (api.Verified, error) {
	v := api.Verified{Database: db, TXID: "0000000000000007", Nodes: []api.VerifiedNode{{Node: "n1", Equal: true, TXID: "0000000000000007"}}}
	if deep {
		v.Nodes = append(v.Nodes, api.VerifiedNode{Node: "n2", TXID: "0000000000000007", Damaged: 1, Pages: map[uint32]string{3: "torn"}, Repaired: true})
	}
	return v, n.do(fmt.Sprintf("verify %s %t", db, deep))
}
func (n *fakeNode) Leave(context.Context) error                 { return n.do("leave") }
func (n *fakeNode) Remove(_ context.Context, node string) error { return n.do("remove " + node) }

// startNode starts a node of the given token that leaves its data dir as a real
// one does.
func startNode(t *testing.T, token string, status api.Status) *fakeNode {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{address: ln.Addr().String(), dataDir: t.TempDir(), status: status}
	writeFile(t, filepath.Join(n.dataDir, api.TokenFile), token+"\n")
	if err := api.WriteAddress(n.dataDir, ln.Addr()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- api.New(api.Config{Backend: n, Token: token, Logger: slog.New(slog.DiscardHandler)}).Run(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

// tableStatus has one of everything that the table shows.
func tableStatus() api.Status {
	return api.Status{
		Cluster: "c1", Node: "n1", ID: "id1", Role: api.RolePrimary, Epoch: 3, Primary: "n1",
		Nodes: []api.Node{
			{Name: "n1", ID: "id1", Address: "10.0.0.1:7400", HTTP: "127.0.0.1:7480", Role: api.RolePrimary, Voter: true, Alive: true},
			{Name: "replica\x1b[2J", ID: "id2", Address: "10.0.0.2:7400"},
		},
		Databases: []api.Database{
			{Name: "app", Path: "/srv/app.db", Epoch: 3, TXID: "0000000000000123", SyncedTXID: "0000000000000120", State: api.StatePrimary, WALBytes: 4152},
			{Name: "b", Path: "/srv/b.db", Epoch: 2, TXID: "000000000000000a", State: api.StateStreaming, LagMS: 0.44, WALBytes: 4_152_000, Quarantined: 2},
			{Name: "c", Path: "/srv/c.db", State: api.StateCatchingUp, LagMS: 75_250, LagTXIDs: 9000, WALBytes: 12_300_000_000},
			{Name: "d", Path: "/srv/d.db", State: api.StateRefused, Error: "it is encrypted,\nor no database"},
		},
	}
}

// LSNODE_GOLDEN=1 writes the files anew.
func TestStatusTable(t *testing.T) {
	lagging := tableStatus()
	lagging.Archive = api.Archive{URL: "file:///a", State: api.ArchiveLagging}
	for name, st := range map[string]api.Status{
		"status.txt": tableStatus(),
		"empty.txt":  {Cluster: "c1", Node: "n1", Role: api.RoleFenced},
	} {
		n := startNode(t, "lsn1-a", st)
		got := call(t, nil, nil, "status", "--data-dir", n.dataDir)
		golden := filepath.Join("testdata", name)
		if os.Getenv("LSNODE_GOLDEN") == "1" {
			writeFile(t, golden, got.out)
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got.code != 0 || got.out != string(want) {
			t.Errorf("%s: exit status %d\n%s%s", name, got.code, got.out, got.err)
		}
	}
	n := startNode(t, "lsn1-a", lagging)
	if got := call(t, nil, nil, "status", "--data-dir", n.dataDir); !strings.Contains(got.out, "\narchive file:///a: lagging\n") {
		t.Error(got.out)
	}
}

// However the node is named, JSON is what the node said.
func TestStatusJSON(t *testing.T) {
	n := startNode(t, "lsn1-a", tableStatus())
	for _, args := range [][]string{{"--data-dir", n.dataDir}, {"--http", n.address}, {"--http", "127.0.0.1:1", "--data-dir", n.dataDir}} {
		got := call(t, nil, nil, append([]string{"status", "--json"}, args...)...)
		var st api.Status
		if err := json.Unmarshal([]byte(got.out), &st); err != nil || got.code != 0 || got.err != "" {
			t.Fatalf("%v: %+v, %v", args, got, err)
		}
		if !reflect.DeepEqual(st.Databases, tableStatus().Databases) || st.Archive.State != api.ArchiveOff {
			t.Errorf("%v: %+v", args, st)
		}
	}
	if got := call(t, []string{"LSNODE_DATA_DIR=" + n.dataDir, "LSNODE_JSON=1"}, nil, "status"); !strings.HasPrefix(got.out, "{") {
		t.Errorf("%+v", got)
	}
}

func TestWait(t *testing.T) {
	n := startNode(t, "lsn1-a", api.Status{})
	n.wait = func(ctx context.Context, db string) error {
		switch db {
		case "gone":
			return fmt.Errorf("epoch 2: %w", api.ErrLineLost)
		case "slow":
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	bookmark := walstream.Position{Epoch: 1, TXID: 2}.Bookmark()
	for _, tt := range []struct {
		db   string
		code int
		err  string
	}{
		{"app", 0, ""},
		{"gone", 1, "lsnode: wait for gone: epoch 2: the cluster's history has left the line of that commit\n"},
		{"slow", 1, "lsnode: wait for slow: transaction 0000000000000002 of slow is not visible within 20ms\n"},
	} {
		got := call(t, nil, nil, "wait", tt.db, bookmark, "--timeout", "20ms", "--data-dir", n.dataDir)
		if got.code != tt.code || got.err != tt.err || got.out != "" {
			t.Errorf("%s: %+v", tt.db, got)
		}
	}
}

func TestChanges(t *testing.T) {
	n := startNode(t, "lsn1-a", tableStatus())
	for _, tt := range []struct{ args, done, out, err string }{
		{"switchover --to n2", "switchover n2", "n1\n", ""},
		{"switchover", "switchover ", "n1\n", ""},
		{"remove n2", "remove n2", "", "n2 is no member any more. Its copies stay read-only until \"lsnode release PATH\" on its host.\n"},
		{"leave", "leave", "", "n1 has left the cluster. Its copies stay read-only; to make one an ordinary database again:\n" +
			"  lsnode release /srv/app.db\n  lsnode release /srv/b.db\n  lsnode release /srv/c.db\n  lsnode release /srv/d.db\n"},
	} {
		before := len(n.done())
		got := call(t, nil, nil, append(strings.Fields(tt.args), "--data-dir", n.dataDir)...)
		if got.code != 0 || got.out != tt.out || got.err != tt.err || !reflect.DeepEqual(n.done()[before:], []string{tt.done}) {
			t.Errorf("%s: %+v, node did %q", tt.args, got, n.done()[before:])
		}
	}
	wrong := writeFile(t, filepath.Join(t.TempDir(), "token"), "lsn1-b")
	before := len(n.done())
	got := call(t, nil, nil, "leave", "--http", n.address, "--token-file", wrong)
	if got.code != 1 || !strings.HasSuffix(got.err, "the token is another cluster's\n") || len(n.done()) != before {
		t.Errorf("with another token: %+v", got)
	}
	n.change = func(what string) error { return fmt.Errorf("%s: %w: n2 is behind", what, api.ErrRefused) }
	if got := call(t, nil, nil, "switchover", "--to", "n2", "--data-dir", n.dataDir); got.code != 1 || got.err != "lsnode: switch over: switchover n2: refused: n2 is behind\n" {
		t.Errorf("refused: %+v", got)
	}
}

func TestNodeIsNotRunning(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := api.WriteAddress(dir, ln.Addr()); err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	got := call(t, nil, nil, "status", "--data-dir", dir)
	if got.code != 1 || !strings.HasSuffix(got.err, "connection refused: the node of "+dir+" is not running\n") {
		t.Errorf("%+v", got)
	}
	got = call(t, nil, nil, "status", "--http", ln.Addr().String())
	if got.code != 1 || !strings.HasSuffix(got.err, "no node listens there: give its --data-dir, or its address with --http\n") {
		t.Errorf("%+v", got)
	}
}

// Damage is an error, also once it is repaired.
func TestVerify(t *testing.T) {
	n := startNode(t, "lsn1-a", api.Status{Node: "n1", Databases: []api.Database{{Name: "app"}}})
	got := call(t, nil, nil, "verify", "--data-dir", n.dataDir)
	if got.code != 0 || !strings.Contains(got.out, "equal") {
		t.Errorf("verify: %+v", got)
	}
	got = call(t, nil, nil, "verify", "app", "--deep", "--data-dir", n.dataDir)
	if got.code != 1 || !strings.Contains(got.out, "damaged, repaired") || !strings.Contains(got.out, "app on n2: page 3: torn") {
		t.Errorf("verify --deep: %+v", got)
	}
}
