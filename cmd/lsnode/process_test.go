package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

// asProgram makes the test binary be the program itself.
const asProgram = "LSNODE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program starts lsnode as a process of its own, which is killed at the test's
// end at the latest.
func program(t *testing.T, args ...string) (cmd *exec.Cmd, log *bytes.Buffer) {
	t.Helper()
	log = new(bytes.Buffer)
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = io.Discard, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	return cmd, log
}

// await calls try until it returns nil.
func await(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sqlite runs the sqlite3 shell: in a process of its own, as an application is.
func sqlite(t *testing.T, path, sql string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("needs the sqlite3 shell")
	}
	out, err := exec.Command("sqlite3", path, sql).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// A file that carries the mark of a follower's copy can be written after
// "release", and a file that is no database doesn't keep it from that.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "app.db")
	if out, err := sqlite(t, db, "PRAGMA journal_mode=wal; CREATE TABLE t(x)"); err != nil {
		t.Fatal(out, err)
	}
	f, err := os.OpenFile(db, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{'L'}, 18); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	const write = "INSERT INTO t VALUES(1); SELECT count(*) FROM t"
	if out, err := sqlite(t, db, write); err == nil || !strings.Contains(out, "readonly") {
		t.Fatalf("write on a copy: %q, %v", out, err)
	}
	other := writeFile(t, filepath.Join(dir, "other"), strings.Repeat("no database\n", 1000))
	got := call(t, nil, nil, "release", other, db)
	if got.code != 1 || !strings.Contains(got.err, other) || !strings.Contains(got.err, db+" is an ordinary database") {
		t.Errorf("release: %+v", got)
	}
	if out, err := sqlite(t, db, write); err != nil || out != "1" {
		t.Errorf("write after release: %q, %v", out, err)
	}
}

// One node from its first start to its end, as a person would run it.
func TestOneNode(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	config := writeFile(t, filepath.Join(dir, "lsnode.yml"), strings.Join([]string{
		"name: n1", "data-dir: " + data, "db: [" + filepath.Join(dir, "app.db") + "]", "listen: 127.0.0.1:0", "http: 127.0.0.1:0", "",
	}, "\n"))
	if out, err := sqlite(t, filepath.Join(dir, "app.db"), "CREATE TABLE t(x); INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(out, err)
	}
	cmd, log := program(t, "run", "--config", config)
	client := new(api.Client)
	await(t, "become ready", func(ctx context.Context) (err error) {
		if client.Address, err = api.ReadAddress(data); err != nil {
			return err
		}
		return client.Ready(ctx)
	})
	st, err := client.Status(t.Context())
	if err != nil || st.Node != "n1" || st.Role != api.RolePrimary || len(st.Databases) != 1 || st.Databases[0].State != api.StatePrimary {
		t.Errorf("status %+v, %v", st, err)
	}
	got := call(t, nil, nil, "status", "--config", config)
	if got.code != 0 || !strings.Contains(got.out, "this node n1 (primary)") {
		t.Errorf("status command: %+v", got)
	}
	if got := call(t, nil, nil, "wait", "app", st.Databases[0].Bookmark, "--data-dir", data); got.code != 0 {
		t.Errorf("wait command: %+v", got)
	}
	if got := call(t, nil, nil, "switchover", "--data-dir", data); got.code != 1 {
		t.Errorf("switchover with nobody to hand over to: %+v", got)
	}

	// The data dir belongs to one process at a time.
	second, secondLog := program(t, "run", "--config", config)
	var exit *exec.ExitError
	if err := second.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(secondLog.String(), data) {
		t.Errorf("second process on the data dir: %v, log %s", err, secondLog)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), `"msg":"stopped"`) {
		t.Errorf("after SIGTERM: %v", err)
	}
	if got := call(t, nil, nil, "status", "--data-dir", data); got.code != 1 {
		t.Errorf("status of a stopped node: %+v", got)
	}
}
