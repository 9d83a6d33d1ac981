package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

const testToken = "lsn1-test"

// fakeBackend answers from fields; each test sets what it needs.
type fakeBackend struct {
	status  Status
	ready   error
	wait    func(ctx context.Context, db string, pos walstream.Position) error
	change  func(ctx context.Context, what string) error
	changes atomic.Int64 // calls of what changes the cluster
}

func (b *fakeBackend) Status(context.Context) Status { return b.status }
func (b *fakeBackend) Ready() error                  { return b.ready }

func (b *fakeBackend) Wait(ctx context.Context, db string, pos walstream.Position) error {
	return b.wait(ctx, db, pos)
}

func (b *fakeBackend) do(ctx context.Context, what string) error {
	b.changes.Add(1)
	if b.change == nil {
		return nil
	}
	return b.change(ctx, what)
}

func (b *fakeBackend) Switchover(ctx context.Context, to string) error {
	return b.do(ctx, "switchover "+to)
}
func (b *fakeBackend) Sync(ctx context.Context, db string) (Synced, error) {
	err := b.do(ctx, "sync "+db)
	return Synced{Bookmark: "lsb1-x", TXID: "0000000000000007", Nodes: []string{"n1", "n2"}}, err
}
func (b *fakeBackend) Verify(ctx context.Context, db string, deep bool) (Verified, error) {
	err := b.do(ctx, fmt.Sprintf("verify %s %t", db, deep))
	return Verified{Database: db, TXID: "0000000000000007", Nodes: []VerifiedNode{{Node: "n1", Equal: true}}}, err
}
func (b *fakeBackend) Leave(ctx context.Context) error { return b.do(ctx, "leave") }
func (b *fakeBackend) Remove(ctx context.Context, node string) error {
	return b.do(ctx, "remove "+node)
}

func follower(databases ...Database) Status {
	return Status{Cluster: "c1", Node: "n2", ID: "id2", Role: RoleFollower, Epoch: 3, Primary: "n1", Databases: databases}
}

func streaming(lagMS float64) Database {
	return Database{Name: "app", Path: "/data/app.db", Epoch: 3, TXID: "0000000000000123", State: StateStreaming, LagMS: lagMS}
}

func ask(t *testing.T, b *fakeBackend, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	s := New(Config{Backend: b, Token: testToken, Logger: slog.New(slog.DiscardHandler)})
	r := httptest.NewRequest(method, target, nil)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestReading(t *testing.T) {
	primary := Status{Node: "n1", Role: RolePrimary, Epoch: 3, Primary: "n1"}
	repairing := streaming(0)
	repairing.State = StateRepairing
	tests := []struct {
		name   string
		b      *fakeBackend
		method string
		target string
		code   int
		body   string
	}{
		{"alive", &fakeBackend{}, "GET", "/livez", 200, `{"status":"ok"}`},
		{"ready", &fakeBackend{}, "GET", "/readyz", 200, `{"status":"ready"}`},
		{"not ready", &fakeBackend{ready: errors.New("database app is seeding")}, "GET", "/readyz", 503, `{"error":"database app is seeding"}`},
		{"primary", &fakeBackend{status: primary}, "GET", "/primary", 200, `{"epoch":3,"node":"n1"}`},
		{"not primary", &fakeBackend{status: follower()}, "GET", "/primary", 503, `{"error":"n2 is follower, the primary is n1"}`},
		{"no primary", &fakeBackend{status: Status{Node: "n2", Role: RoleFenced}}, "GET", "/primary", 503, `{"error":"n2 is fenced, no primary is known"}`},
		{"candidate is no primary", &fakeBackend{status: Status{Node: "n2", Role: RoleCandidate}}, "GET", "/primary", 503, `{"error":"n2 is candidate, no primary is known"}`},
		{"replica", &fakeBackend{status: follower(streaming(900))}, "GET", "/replica", 200, `{"lag_ms":900,"node":"n2"}`},
		{"replica within lag", &fakeBackend{status: follower(streaming(900))}, "GET", "/replica?max_lag=1s", 200, `{"lag_ms":900,"node":"n2"}`},
		{"replica lags", &fakeBackend{status: follower(streaming(1100))}, "GET", "/replica?max_lag=1s", 503, `{"error":"database app lags by 1.1s, more than 1s"}`},
		{"replica lags in one", &fakeBackend{status: follower(streaming(0), streaming(11))}, "GET", "/replica?max_lag=10ms", 503, `{"error":"database app lags by 11ms, more than 10ms"}`},
		{"replica repairs", &fakeBackend{status: follower(repairing)}, "GET", "/replica?max_lag=1s", 503, `{"error":"database app is repairing, not streaming"}`},
		{"replica is empty", &fakeBackend{status: follower()}, "GET", "/replica", 503, `{"error":"n2 has no database yet"}`},
		{"primary is no replica", &fakeBackend{status: primary}, "GET", "/replica", 503, `{"error":"n1 is primary, no follower"}`},
		{"bad lag", &fakeBackend{status: follower()}, "GET", "/replica?max_lag=soon", 400, `{"error":"max_lag=soon: want a duration from 0s to 1h0m0s, such as 500ms or 5s"}`},
		{"unknown path", &fakeBackend{}, "GET", "/v1/events", 404, `{"error":"/v1/events: no such path"}`},
		{"unknown path below a known one", &fakeBackend{}, "GET", "/v1/status/x", 404, `{"error":"/v1/status/x: no such path"}`},
		{"no metrics", &fakeBackend{}, "GET", "/metrics", 404, `{"error":"/metrics: no such path"}`},
		{"wrong method", &fakeBackend{}, "DELETE", "/v1/status", 405, `{"error":"DELETE /v1/status: the method must be GET, HEAD"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := ask(t, tt.b, tt.method, tt.target)
			if w.Code != tt.code || w.Body.String() != tt.body+"\n" {
				t.Errorf("%s %s: %d %s\nwant %d %s", tt.method, tt.target, w.Code, w.Body, tt.code, tt.body)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q", got)
			}
		})
	}
}

// The contract, field by field: programs read these names.
func TestStatusJSON(t *testing.T) {
	b := &fakeBackend{status: Status{
		Cluster: "c1", Node: "n1", ID: "id1", Role: RolePrimary, Epoch: 3, Primary: "n1",
		Nodes: []Node{{Name: "n1", ID: "id1", Address: "10.0.0.1:7400", HTTP: "127.0.0.1:7480", Role: RolePrimary, Voter: true, Alive: true}},
		Databases: []Database{{
			Name: "app", Path: "/data/app.db", Epoch: 3, TXID: "0000000000000123", Checksum: "8000000000000001", Bookmark: "lsb1-x",
			State: StatePrimary, LagMS: 0.4, SyncedTXID: "0000000000000120", WALBytes: 4152, Quarantined: 2,
		}},
	}}
	const want = `{"cluster":"c1","node":"n1","id":"id1","role":"primary","epoch":3,"primary":"n1",` +
		`"nodes":[{"name":"n1","id":"id1","address":"10.0.0.1:7400","http":"127.0.0.1:7480","role":"primary","voter":true,"alive":true}],` +
		`"databases":[{"name":"app","path":"/data/app.db","epoch":3,"txid":"0000000000000123","checksum":"8000000000000001","bookmark":"lsb1-x",` +
		`"state":"primary","error":"","lag_ms":0.4,"lag_txids":0,` +
		`"synced_txid":"0000000000000120","wal_bytes":4152,"quarantined":2}],` +
		`"archive":{"url":"","state":"off","databases":[]},"guard":{"state":"off","pid":0,"restarts":0,"error":""}}` + "\n"
	if got := ask(t, b, "GET", "/v1/status").Body.String(); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	const empty = `{"cluster":"","node":"","id":"","role":"fenced","epoch":0,"primary":"","nodes":[],"databases":[],"archive":{"url":"","state":"off","databases":[]},"guard":{"state":"off","pid":0,"restarts":0,"error":""}}` + "\n"
	if got := ask(t, &fakeBackend{status: Status{Role: RoleFenced}}, "GET", "/v1/status").Body.String(); got != empty {
		t.Errorf("got  %swant %s", got, empty)
	}
}

func TestWait(t *testing.T) {
	pos := walstream.Position{Epoch: 3, TXID: 0x123, Checksum: walstream.ChecksumFlag | 7}
	b := &fakeBackend{wait: func(ctx context.Context, db string, got walstream.Position) error {
		switch {
		case db == "gone":
			return fmt.Errorf("wait for gone: %w", ErrLineLost)
		case db == "slow":
			<-ctx.Done()
			return fmt.Errorf("wait for slow: %w", ctx.Err())
		case db != "app" || got != pos:
			return fmt.Errorf("wait for %s: %w", db, ErrUnknownDatabase)
		}
		return nil
	}}
	bookmark := pos.Bookmark()
	tests := []struct {
		target string
		code   int
		body   string
	}{
		{"/v1/databases/app/wait?bookmark=" + bookmark, 200, `{"bookmark":"` + bookmark + `","txid":"0000000000000123"}`},
		{"/v1/databases/other/wait?bookmark=" + bookmark, 404, `{"error":"wait for other: no such database"}`},
		{"/v1/databases/gone/wait?bookmark=" + bookmark, 410, `{"error":"wait for gone: the cluster's history has left the line of that commit"}`},
		{"/v1/databases/slow/wait?timeout=20ms&bookmark=" + bookmark, 504, `{"error":"transaction 0000000000000123 of slow is not visible within 20ms"}`},
		{"/v1/databases/app/wait", 400, `{"error":"bookmark: parse \"\": not a bookmark: it must begin with \"lsb1-\""}`},
		{"/v1/databases/app/wait?timeout=-1s&bookmark=" + bookmark, 400, `{"error":"timeout=-1s: want a duration from 0s to 1h0m0s, such as 500ms or 5s"}`},
		{"/v1/databases/app/wait?timeout=2h&bookmark=" + bookmark, 400, `{"error":"timeout=2h: want a duration from 0s to 1h0m0s, such as 500ms or 5s"}`},
	}
	for _, tt := range tests {
		if w := ask(t, b, "GET", tt.target); w.Code != tt.code || w.Body.String() != tt.body+"\n" {
			t.Errorf("GET %s: %d %s\nwant %d %s", tt.target, w.Code, w.Body, tt.code, tt.body)
		}
	}
}

func TestChanging(t *testing.T) {
	auth := "Authorization: Bearer " + testToken
	b := &fakeBackend{status: Status{Primary: "n2", Epoch: 4}, change: func(_ context.Context, what string) error {
		switch what {
		case "switchover n9", "remove n9":
			return fmt.Errorf("%s: %w", what, ErrUnknownNode)
		case "switchover n3":
			return fmt.Errorf("%s: %w: n3 is behind", what, ErrRefused)
		case "remove n2":
			return fmt.Errorf("%s: %w", what, ErrNoPrimary)
		case "remove n4":
			return fmt.Errorf("%s: %w", what, context.DeadlineExceeded)
		case "remove n5":
			return errors.New("disk full")
		}
		return nil
	}}
	tests := []struct {
		method, target, header string
		code                   int
		body                   string
	}{
		{"POST", "/v1/switchover", auth, 200, `{"primary":"n2","epoch":4}`},
		{"POST", "/v1/switchover?to=n2", auth, 200, `{"primary":"n2","epoch":4}`},
		{"POST", "/v1/switchover?to=n9", auth, 404, `{"error":"switchover n9: no such node"}`},
		{"POST", "/v1/switchover?to=n3", auth, 409, `{"error":"switchover n3: refused: n3 is behind"}`},
		{"POST", "/v1/leave", auth, 200, `{}`},
		{"POST", "/v1/remove?node=n3", auth, 200, `{}`},
		{"POST", "/v1/remove", auth, 400, `{"error":"remove: name the node with ?node=NAME"}`},
		{"POST", "/v1/remove?node=n9", auth, 404, `{"error":"remove n9: no such node"}`},
		{"POST", "/v1/remove?node=n2", auth, 503, `{"error":"remove n2: no node is primary at present"}`},
		{"POST", "/v1/remove?node=n4", auth, 504, `{"error":"remove n4: context deadline exceeded"}`},
		{"POST", "/v1/remove?node=n5", auth, 500, `{"error":"disk full"}`},
		{"POST", "/v1/switchover", "Authorization: bearer  " + testToken, 200, `{"primary":"n2","epoch":4}`},
	}
	for _, tt := range tests {
		if w := ask(t, b, tt.method, tt.target, tt.header); w.Code != tt.code || w.Body.String() != tt.body+"\n" {
			t.Errorf("%s %s: %d %s\nwant %d %s", tt.method, tt.target, w.Code, w.Body, tt.code, tt.body)
		}
	}
}

func TestChangingNeedsTheToken(t *testing.T) {
	for _, target := range []string{"/v1/switchover", "/v1/leave", "/v1/remove?node=n2"} {
		for _, header := range []string{
			"X: ", "Authorization: ", "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Bearer wrong",
			"Authorization: " + testToken, "Authorization: Basic " + testToken, "Authorization: Bearer " + testToken + "x",
		} {
			b := &fakeBackend{}
			w := ask(t, b, "POST", target, header)
			if w.Code != 401 || b.changes.Load() != 0 || !strings.HasPrefix(w.Body.String(), `{"error":"`) {
				t.Errorf("POST %s with %q: %d %s, %d changes", target, header, w.Code, w.Body, b.changes.Load())
			}
		}
		b := &fakeBackend{}
		if w := ask(t, b, "GET", target, "Authorization: Bearer "+testToken); w.Code != 405 || w.Header().Get("Allow") != "POST" || b.changes.Load() != 0 {
			t.Errorf("GET %s: %d", target, w.Code)
		}
	}
	// A server that was given no token must not be opened by an empty one.
	b := &fakeBackend{}
	r := httptest.NewRequest("POST", "/v1/leave", nil)
	r.Header.Set("Authorization", "Bearer ")
	w := httptest.NewRecorder()
	New(Config{Backend: b}).Handler().ServeHTTP(w, r)
	if w.Code != 401 || b.changes.Load() != 0 {
		t.Errorf("without a token: %d", w.Code)
	}
}

// start runs a server and returns a client of it, and how to stop it.
func start(t *testing.T, cfg Config) (*Client, func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Token, cfg.Logger = testToken, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(cfg).Run(ctx, ln) }()
	stop := func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the server does not stop")
		}
	}
	return &Client{Address: ln.Addr().String(), Token: testToken}, stop
}

// A node that stops must not wait for those who wait for a commit, but answer
// the request that made it stop.
func TestStopping(t *testing.T) {
	waiting, stopping := make(chan struct{}), make(chan struct{})
	b := &fakeBackend{
		wait: func(ctx context.Context, _ string, _ walstream.Position) error {
			close(waiting)
			<-ctx.Done()
			return ctx.Err()
		},
		change: func(context.Context, string) error { close(waiting); <-stopping; return nil },
	}
	for _, tt := range []struct {
		name string
		call func(*Client) error
		code int
	}{
		{"leave", func(c *Client) error { return c.Leave(t.Context(), time.Minute) }, 200},
		{"wait", func(c *Client) error {
			_, err := c.Wait(t.Context(), "app", walstream.Position{}.Bookmark(), time.Minute)
			return err
		}, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			waiting = make(chan struct{})
			c, stop := start(t, Config{Backend: b})
			answered := make(chan error, 1)
			go func() { answered <- tt.call(c) }()
			<-waiting
			time.AfterFunc(50*time.Millisecond, func() {
				if tt.name == "leave" {
					close(stopping)
				}
			})
			begin := time.Now()
			if err := stop(); err != nil {
				t.Error(err)
			}
			var e *Error
			switch err := <-answered; {
			case tt.code == 200 && err != nil:
				t.Errorf("answered %v", err)
			case tt.code != 200 && (!errors.As(err, &e) || e.Code != tt.code):
				t.Errorf("answered %v, want %d", err, tt.code)
			}
			if d := time.Since(begin); d > shutdownTimeout {
				t.Errorf("stopped after %s only", d)
			}
		})
	}
}

func TestWaitsAreBounded(t *testing.T) {
	waiting := make(chan struct{})
	b := &fakeBackend{wait: func(ctx context.Context, _ string, _ walstream.Position) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}
	c, stop := start(t, Config{Backend: b, MaxWaits: 1})
	bookmark := walstream.Position{}.Bookmark()
	first := make(chan error, 1)
	go func() {
		_, err := c.Wait(t.Context(), "app", bookmark, time.Minute)
		first <- err
	}()
	<-waiting
	_, err := c.Wait(t.Context(), "app", bookmark, time.Minute)
	if e := new(Error); !errors.As(err, &e) || e.Code != 503 {
		t.Errorf("second wait: %v, want 503", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	<-first
}

// The bound on the time in which a request must have been read must not end
// one that waits.
func TestWaitOutlastsTheReadTimeout(t *testing.T) {
	const timeout = 50 * time.Millisecond
	b := &fakeBackend{wait: func(ctx context.Context, _ string, _ walstream.Position) error {
		select {
		case <-time.After(5 * timeout):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	srv := httptest.NewUnstartedServer(New(Config{Backend: b}).Handler())
	srv.Config.ReadTimeout = timeout
	srv.Start()
	defer srv.Close()
	c := &Client{Address: srv.Listener.Addr().String()}
	if _, err := c.Wait(t.Context(), "app", walstream.Position{}.Bookmark(), time.Minute); err != nil {
		t.Error(err)
	}
}

func TestLargeRequestsAreCutOff(t *testing.T) {
	c, stop := start(t, Config{Backend: &fakeBackend{}})
	r, err := http.NewRequest("GET", "http://"+c.Address+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", resp.Status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
