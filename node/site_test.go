package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/state"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/node/metrics"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/stream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// site is a node without a cluster: one database, "app", with a real log and
// real files. The test plays the cluster.
type site struct {
	t    *testing.T
	dir  string
	path string // of the database
	d    *database
	end  func() // of the time that it is open
}

// newSite opens a site in a directory of its own.
func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, dir: dir, path: filepath.Join(dir, "app.db")}
	s.open()
	t.Cleanup(func() { s.close() })
	return s
}

func (s *site) open() {
	s.t.Helper()
	quiet := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	log, err := txlog.Open(filepath.Join(s.dir, "log"), txlog.Options{Logger: quiet})
	if err != nil {
		s.t.Fatal(err)
	}
	watcher, err := capture.NewWatcher()
	if err != nil {
		s.t.Fatal(err)
	}
	watched := make(chan struct{})
	go func() { defer close(watched); _ = watcher.Run(context.Background()) }() // until Close
	m := metrics.New(metrics.Sources{
		Status: func() api.Status { return api.Status{} }, Lease: func() float64 { return 0 }, LogBytes: func() int64 { return 0 },
	})
	s.d = &database{
		shared: &shared{
			log: quiet, txlog: log, gate: newGate(), node: "n1", watcher: watcher,
			quarantine: QuarantineOf(s.dir),
		},
		name: "app", path: s.path, dir: filepath.Join(s.dir, "state", "app"), progress: newProgress(), counts: m.Database("app"),
	}
	s.end = func() {
		must(s.t, s.d.close(context.Background()))
		must(s.t, log.Close())
		must(s.t, watcher.Close())
		<-watched
	}
}

func (s *site) close() {
	if s.end != nil {
		s.end()
		s.end = nil
	}
}

// restart closes everything in order and opens it again.
func (s *site) restart() { s.t.Helper(); s.close(); s.open() }

// crash restarts as after SIGKILL: what is recorded of the copy is what was
// recorded before the end, not what an orderly end records.
func (s *site) crash() {
	s.t.Helper()
	before := filepath.Join(s.t.TempDir(), "state")
	run(s.t, "cp", "-a", s.d.dir, before)
	s.close()
	must(s.t, os.RemoveAll(s.d.dir))
	run(s.t, "cp", "-a", before, s.d.dir)
	s.open()
}

// reign lets the site capture in an epoch until the function that it returns
// is called, which leaves the database as SIGKILL does: not fenced.
func (s *site) reign(epoch walstream.Epoch) (stop func()) {
	s.t.Helper()
	return s.reignWhile(epoch, func() bool { return true })
}

// reignWhile is reign with a lease that holds while valid says so.
func (s *site) reignWhile(epoch walstream.Epoch, valid func() bool) (stop func()) {
	s.t.Helper()
	broker, err := stream.NewBroker(stream.BrokerConfig{})
	must(s.t, err)
	publisher, err := broker.Publisher("test")
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &reigning{d: s.d, reign: &reign{
		epoch: epoch, publisher: publisher, valid: valid,
		register: func(context.Context, string) error { return nil },
	}}
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, publisher.Close(), broker.Close()); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	s.until("capture", func() bool { return s.status().State == api.StatePrimary })
	return stop
}

func (s *site) status() api.Database { return s.d.progress.status("app", s.path, time.Now()) }

// until waits for a condition of which nobody is told.
func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(soon); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %s: %+v", what, soon, s.status())
		}
	}
}

// reach waits until the log has n commits.
func (s *site) reach(n walstream.TXID) walstream.Position {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), soon)
	defer cancel()
	for {
		changed := s.d.txlog.Notify("app")
		last := s.d.txlog.Last("app")
		if last.TXID >= n {
			return last
		}
		select {
		case <-changed:
		case <-ctx.Done():
			s.t.Fatalf("the log stands at %s, %s; want commit %d", last, s.status().Error, n)
		}
	}
}

// dial connects to the site's server of pulls.
func (s *site) dial() stream.Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		server, err := stream.NewServer(stream.ServerConfig{
			Log:      s.d.txlog,
			Snapshot: func(ctx context.Context, _ string) (*stream.Snapshot, error) { return s.d.snapshot(ctx) },
		})
		if err != nil {
			return nil, err
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		ours, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return nil, err
		}
		theirs, err := listener.Accept()
		if err != nil {
			return nil, errors.Join(err, ours.Close())
		}
		go func() { _ = server.Serve(context.WithoutCancel(ctx), theirs) }() // ends with the connection
		return ours, nil
	}
}

// follow lets a site follow another until its log stands at goal.
func (s *site) follow(primary *site, epoch walstream.Epoch, line state.Line, goal walstream.Position) {
	s.t.Helper()
	s.following(primary, epoch, line, func(*following) {
		for s.reach(goal.TXID).Compare(goal) < 0 {
		}
		s.shown(goal)
	})
}

// following lets a site follow another while the test does something.
func (s *site) following(primary *site, epoch walstream.Epoch, line state.Line, do func(*following)) {
	s.t.Helper()
	f := newFollowing(s.d, &term{
		epoch: epoch, line: line, primary: "n2",
		dial:    func(string) stream.Dialer { return primary.dial() },
		sources: func() []string { return []string{"n2"} },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.run(ctx) }()
	defer func() { cancel(); <-done }()
	do(f)
}

// shown waits until readers see a position.
func (s *site) shown(goal walstream.Position) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), soon)
	defer cancel()
	for {
		visible, advanced := s.d.progress.position()
		if visible.Compare(goal) >= 0 {
			return
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			s.t.Fatalf("readers see %s, want %s: %+v", visible, goal, s.status())
		}
	}
}

// kept returns the only entry of the quarantine, and the copy's path.
func (s *site) kept() (Kept, string) {
	s.t.Helper()
	entries, err := s.d.quarantine.List()
	must(s.t, err)
	if len(entries) != 1 {
		s.t.Fatalf("%d entries in quarantine, want 1: %+v", len(entries), entries)
	}
	copies, err := filepath.Glob(filepath.Join(s.d.quarantine.dir, "*", entries[0].File))
	must(s.t, err)
	if len(copies) != 1 {
		s.t.Fatalf("copies in quarantine: %v", copies)
	}
	return entries[0], copies[0]
}

func (s *site) wantDoubt(want doubt) {
	s.t.Helper()
	if why, err := s.d.doubt(); err != nil || why != want {
		s.t.Errorf("doubt is %q (%v), want %q", why, err, want)
	}
}

// began is a line that begins with epoch 1; each further position is where the
// next epoch goes on.
func began(starts ...walstream.Position) state.Line {
	line := state.Line{Reigns: []state.Reign{{Epoch: 1, Node: "n1", Start: map[string]state.Position{"app": {}}}}}
	for i, start := range starts {
		line.Reigns = append(line.Reigns, state.Reign{Epoch: uint64(i + 2), Node: "n2", Start: map[string]state.Position{"app": toState(start)}})
	}
	return line
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// sqlite runs statements in the sqlite3 shell, a process of its own: closing a
// descriptor of a database in this one would drop the locks of SQLite.
func sqlite(t *testing.T, path, sql string) string {
	t.Helper()
	return run(t, "sqlite3", "-bail", "-cmd", ".timeout 10000", path, sql)
}

// table makes an application's database.
func table(t *testing.T, path string) {
	t.Helper()
	sqlite(t, path, "PRAGMA journal_mode=WAL; CREATE TABLE t(a)")
}

// application is a sqlite3 shell that has the database open for as long as the
// test likes: so the WAL stays when lsnode goes.
type application struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	runs int
}

func newApplication(t *testing.T, path string) *application {
	t.Helper()
	a := &application{t: t, cmd: exec.Command("sqlite3", path)}
	var err error
	a.in, err = a.cmd.StdinPipe()
	must(t, err)
	out, err := a.cmd.StdoutPipe()
	must(t, err)
	a.cmd.Stderr = a.cmd.Stdout
	a.out = bufio.NewScanner(out)
	must(t, a.cmd.Start())
	t.Cleanup(a.kill)
	a.run(".timeout 10000")
	a.run("PRAGMA wal_autocheckpoint=0;")
	return a
}

// run runs statements and returns what they print, errors too.
func (a *application) run(sql string) string {
	a.t.Helper()
	a.runs++
	end := fmt.Sprintf("done-%d", a.runs)
	_, err := fmt.Fprintf(a.in, "%s\n.print %s\n", sql, end)
	must(a.t, err)
	var lines []string
	for a.out.Scan() {
		if a.out.Text() == end {
			return strings.Join(lines, "\n")
		}
		lines = append(lines, a.out.Text())
	}
	a.t.Fatalf("the application ended: %v", lines)
	return ""
}

// insert commits n rows, each in a transaction of its own.
func (a *application) insert(rows ...int) {
	a.t.Helper()
	for _, n := range rows {
		if out := a.run(fmt.Sprintf("INSERT INTO t VALUES(%d);", n)); out != "" {
			a.t.Fatalf("insert %d: %s", n, out)
		}
	}
}

// kill leaves -wal and -shm behind.
func (a *application) kill() {
	if a.cmd.ProcessState == nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	}
}

// rows returns the rows of a database as another process sees them.
func rows(t *testing.T, path string) string {
	t.Helper()
	if got := sqlite(t, path, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("%s: %s", path, got)
	}
	return sqlite(t, path, "SELECT group_concat(a,' ') FROM (SELECT a FROM t ORDER BY a)")
}

func wantRows(t *testing.T, path, want string) {
	t.Helper()
	if got := rows(t, path); got != want {
		t.Errorf("%s has %q, want %q", path, got, want)
	}
}
