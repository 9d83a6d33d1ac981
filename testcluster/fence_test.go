package testcluster_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

const readonlyText = "attempt to write a readonly database"

// A follower's copy refuses every write with SQLite's own words, whether lsnode
// runs there, was stopped, or was killed.
func TestFollowerIsReadOnly(t *testing.T) {
	w := started(t, 2*time.Minute, testcluster.Options{})
	w.settled(5)
	primary, stopped, killed := w.Nodes[0], w.Nodes[1], w.Nodes[2]

	refuses(t, stopped)
	refuses(t, killed)
	w.must(stopped.Terminate(20 * time.Second))
	refuses(t, stopped)
	killed.Kill()
	refuses(t, killed)

	w.must(w.StartNode(stopped))
	w.must(w.StartNode(killed))
	w.must(w.WaitSettled(w.ctx))
	refuses(t, stopped)
	refuses(t, killed)
	bank := w.writer(w.primary(), "bank", "--count", "20")
	_, err := bank.Wait()
	w.must(err)
	t.Logf("%+v, primary was %s", w.verify(), primary.Name)
}

// refuses tries to write in several ways.
func refuses(t *testing.T, n *testcluster.Node) {
	t.Helper()
	db := n.DB(testcluster.DatabaseName)
	c, err := app.Open(db, app.Settings{Busy: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, statement := range []string{
		"INSERT INTO item(n) VALUES(1)",
		"CREATE TABLE mine(a)",
		"VACUUM",
		"BEGIN IMMEDIATE; UPDATE meta SET value=0; COMMIT",
		"PRAGMA user_version=7",
	} {
		err := c.Exec(statement)
		if !app.IsReadonly(err) || !strings.Contains(err.Error(), readonlyText) {
			t.Errorf("node %s: %s: got %v, want %q", n.Name, statement, err, readonlyText)
		}
		c.Exec("ROLLBACK") // after the one that had begun
	}
	out, err := exec.Command("sqlite3", db, ".timeout 1000", "DELETE FROM account").CombinedOutput()
	if err == nil || !strings.Contains(string(out), readonlyText) {
		t.Errorf("node %s: sqlite3 shell: got %v, %s, want %q", n.Name, err, out, readonlyText)
	}
	var sum, total int64
	if err := c.Row("SELECT (SELECT sum(balance) FROM account), (SELECT value FROM meta WHERE name='total')", &sum, &total); err != nil || sum != total {
		t.Errorf("node %s: read after refused writes: sum %d, total %d, %v", n.Name, sum, total, err)
	}
}

// A connection that could write a moment ago can't when its node is demoted,
// and what it wrote before is everywhere.
func TestDemotedConnectionIsReadOnly(t *testing.T) {
	w := started(t, 2*time.Minute, testcluster.Options{Args: calm})
	first, second := w.Nodes[0], w.Nodes[1]
	c, err := app.Open(first.DB(testcluster.DatabaseName), app.Settings{Busy: 5 * time.Second})
	w.must(err)
	defer c.Close()
	idle, err := app.Open(first.DB(testcluster.DatabaseName), app.Settings{Busy: 5 * time.Second})
	w.must(err)
	defer idle.Close()
	w.must(idle.Exec("INSERT INTO item(n) VALUES(0)"))

	handed := make(chan error, 1)
	go func() { // received below
		_, err := first.Run(w.ctx, "switchover", "--to", second.Name)
		handed <- err
	}()
	wrote := int64(0)
	for {
		if err = c.Exec("INSERT INTO item(n) VALUES(1)"); err != nil {
			break
		}
		wrote++
	}
	if !app.IsReadonly(err) {
		t.Errorf("after %d writes: got %v, want %q", wrote, err, readonlyText)
	}
	w.must(<-handed)
	if err := idle.Exec("INSERT INTO item(n) VALUES(2)"); !app.IsReadonly(err) {
		t.Errorf("idle connection: got %v, want %q", err, readonlyText)
	}
	refuses(t, first)

	w.must(w.WaitSettled(w.ctx))
	if n := w.primary(); n != second {
		t.Errorf("primary is %s, want %s", n.Name, second.Name)
	}
	d, err := w.Compare(w.ctx)
	w.must(err)
	if d.Rows["item"] != wrote+1 {
		t.Errorf("%d rows arrived of %d", d.Rows["item"], wrote+1)
	}
}
