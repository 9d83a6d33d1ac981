package testcluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// answer is what a node answers to a sync.
type answer struct {
	Code     int
	Bookmark string   `json:"bookmark"`
	TXID     string   `json:"txid"`
	Nodes    []string `json:"nodes"`
	Error    string   `json:"error"`
}

// sync asks a node to sync the bank's database.
func (w *world) sync(n *testcluster.Node, timeout time.Duration) (answer, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.Dial}, Timeout: timeout + 20*time.Second}
	url := fmt.Sprintf("http://%s/v1/databases/%s/sync?timeout=%s", n.HTTP, testcluster.DatabaseName, timeout)
	res, err := client.Post(url, "", nil)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	a := answer{Code: res.StatusCode}
	return a, json.NewDecoder(res.Body).Decode(&a)
}

// mustSync fails the test unless the node answers with this status.
func (w *world) mustSync(n *testcluster.Node, timeout time.Duration, code int) answer {
	w.t.Helper()
	a, err := w.sync(n, timeout)
	w.must(err)
	if a.Code != code {
		w.t.Fatalf("sync on %s: %+v, want %d", n.Name, a, code)
	}
	return a
}

// rowsFrom opens a connection to a node's file, to add rows to.
func (w *world) rowsFrom(n *testcluster.Node) *app.Conn {
	w.t.Helper()
	c, err := app.Open(n.DB(testcluster.DatabaseName), app.Settings{Busy: 10 * time.Second})
	w.must(err)
	w.t.Cleanup(func() { c.Close() })
	return c
}

func add(c *app.Conn, row int64) error { return c.Exec("INSERT INTO item(n) VALUES(?)", row) }

// clients commit rows of their own and ask for a sync after each.
type clients struct {
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked []int64       // rows of which a sync has answered; guarded by mu
	grown chan struct{} // guarded by mu; closed and replaced with each
	ends  []error       // how each client ended; guarded by mu
}

// syncing starts clients on a node. Each ends with its first error, or after so
// many rows if most is not 0. Row numbers are taken from next.
func (w *world) syncing(n *testcluster.Node, count, most int, next *atomic.Int64) *clients {
	w.t.Helper()
	c := &clients{grown: make(chan struct{})}
	for range count {
		conn := w.rowsFrom(n)
		c.wg.Go(func() {
			defer conn.Close()
			err := c.run(w, n, conn, most, next)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.ends = append(c.ends, err)
		})
	}
	return c
}

func (c *clients) run(w *world, n *testcluster.Node, conn *app.Conn, most int, next *atomic.Int64) error {
	for i := 0; most == 0 || i < most; i++ {
		row := next.Add(1)
		if err := add(conn, row); err != nil {
			return err
		}
		a, err := w.sync(n, 30*time.Second)
		if err != nil {
			return err
		}
		if a.Code != http.StatusOK {
			return fmt.Errorf("sync: %+v", a)
		}
		c.mu.Lock()
		c.acked = append(c.acked, row)
		close(c.grown)
		c.grown = make(chan struct{})
		c.mu.Unlock()
	}
	return nil
}

// until waits until so many rows are synced.
func (c *clients) until(w *world, n int) {
	w.t.Helper()
	for {
		c.mu.Lock()
		have, ended, grown := len(c.acked), slices.Clone(c.ends), c.grown
		c.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-grown:
		case <-time.After(time.Second):
			if len(ended) > 0 {
				w.t.Fatalf("clients have ended after %d rows: %v", have, ended)
			}
		case <-w.ctx.Done():
			w.t.Fatalf("%d rows are synced, want %d: %v", have, n, w.ctx.Err())
		}
	}
}

// wait returns, once all have ended, the rows that are synced.
func (c *clients) wait() ([]int64, []error) {
	c.wg.Wait()
	return c.acked, c.ends
}

// holds fails the test unless a node's copy shows all these rows.
func (w *world) holds(n *testcluster.Node, rows []int64) {
	w.t.Helper()
	c, err := app.Open(n.DB(testcluster.DatabaseName), app.Settings{Busy: 10 * time.Second})
	w.must(err)
	defer c.Close()
	var text string
	w.must(c.Row("SELECT json_group_array(n) FROM item", &text))
	var shown []int64
	w.must(json.Unmarshal([]byte(text), &shown))
	slices.Sort(shown)
	var missing []int64
	for _, row := range rows {
		if _, ok := slices.BinarySearch(shown, row); !ok {
			missing = append(missing, row)
		}
	}
	if len(missing) > 0 {
		w.t.Fatalf("%s lacks %d of %d rows that were synced: %v", n.Name, len(missing), len(rows), missing)
	}
}

// A sync needs a majority and no more: one follower that does not answer does
// not hold it up. Without a majority it says so when its time is out. Only the
// primary can answer.
func TestSyncNeedsMajority(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Args: calm})
	primary := w.primary()
	var followers []*testcluster.Node
	for _, n := range w.Nodes {
		if n != primary {
			followers = append(followers, n)
		}
	}
	rows := w.rowsFrom(primary)
	w.must(add(rows, 1))
	out, err := primary.Run(w.ctx, "sync", testcluster.DatabaseName)
	w.must(err)
	bookmark := strings.TrimSpace(out)
	if out != bookmark+"\n" || bookmark == "" {
		t.Errorf("sync printed %q, want a bookmark and nothing else", out)
	}
	for _, n := range followers {
		_, err := n.Run(w.ctx, "wait", testcluster.DatabaseName, bookmark, "--timeout", "30s")
		w.must(err)
		w.holds(n, []int64{1})
		if a := w.mustSync(n, time.Second, http.StatusMisdirectedRequest); !strings.Contains(a.Error, primary.Name) {
			t.Errorf("%s does not name the primary: %s", n.Name, a.Error)
		}
	}

	w.must(followers[0].Stop())
	w.must(add(rows, 2))
	a := w.mustSync(primary, 20*time.Second, http.StatusOK)
	if want := []string{primary.Name, followers[1].Name}; !slices.Equal(a.Nodes, want) {
		t.Errorf("durable on %v, want %v", a.Nodes, want)
	}
	synced := a.TXID

	w.must(followers[1].Stop())
	w.must(add(rows, 3))
	began := time.Now()
	a = w.mustSync(primary, time.Second, http.StatusGatewayTimeout)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("without a majority it took %s to say so", took)
	}
	if a.Bookmark != "" || !strings.Contains(a.Error, primary.Name+" has it") {
		t.Errorf("without a majority: %+v, want where the commit is", a)
	}
	if s := w.status(primary).Database(testcluster.DatabaseName); s.SyncedTXID > synced {
		t.Errorf("status says that a majority has %s, it has %s", s.SyncedTXID, synced)
	}
	w.must(followers[0].Cont())
	w.must(followers[1].Cont())
}

// The primary is killed, with its applications, while they commit and sync:
// whoever comes after it has every commit of which a sync has answered. Every
// other time one follower has been away, so that only two nodes have the newest.
func TestSyncedSurvivesPrimary(t *testing.T) {
	w := started(t, time.Duration(pick(4, 20))*time.Minute, testcluster.Options{})
	var (
		synced []int64
		next   atomic.Int64
	)
	for i := range pick(3, 20) {
		w.must(w.WaitSettled(w.ctx))
		old := w.primary()
		bank := w.writer(old, "bank", "--rate", "200")
		w.more(bank, 20)
		away := w.Nodes[(slices.Index(w.Nodes, old)+1+i/2%2)%len(w.Nodes)]
		if i%2 == 0 {
			w.must(away.Stop())
		}
		c := w.syncing(old, 4, 0, &next)
		c.until(w, 20)
		w.pause(100 * time.Millisecond)
		old.Kill()
		bank.Kill()
		rows, ends := c.wait()
		synced = append(synced, rows...)
		t.Logf("kill %d of %s, without %s: %v: %d rows synced; then: %v", i+1, old.Name, away.Name, i%2 == 0, len(rows), ends[0])
		if i%2 == 0 {
			w.must(away.Cont())
		}
		heir := w.primary(old)
		w.holds(heir, synced)
		w.must(w.StartNode(old))
	}
	w.must(w.WaitSettled(w.ctx))
	t.Logf("%+v", w.verify())
	for _, n := range w.Nodes {
		w.holds(n, synced)
	}
}

// Sixteen clients at once are all answered, and what they have is everywhere.
func TestSyncManyClients(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Args: calm})
	primary := w.primary()
	var next atomic.Int64
	most := pick(10, 200)
	began := time.Now()
	rows, ends := w.syncing(primary, 16, most, &next).wait()
	if err := errors.Join(ends...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commits were synced in %v", len(rows), time.Since(began))
	if len(rows) != 16*most {
		t.Errorf("%d rows are synced, want %d", len(rows), 16*most)
	}
	_, err := w.Compare(w.ctx)
	w.must(err)
	for _, n := range w.Nodes {
		w.holds(n, rows)
	}
}
