package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/node"
)

// keptEntry makes a data dir whose quarantine has one entry: row 2 is in the
// copy, row 3 in the database.
func keptEntry(t *testing.T) (data string, entry node.Kept) {
	t.Helper()
	data = t.TempDir()
	entry = node.Kept{
		Version: 1, Database: "app", Node: "n1", Path: filepath.Join(data, "app.db"), Epoch: 3,
		From: "0000000000000002/0000000000000007/8000000000000001", To: "0000000000000003/0000000000000008/8000000000000002",
		Logged: 1, Uncaptured: 2, Found: time.Unix(1_800_000_000, 0), File: "app.db",
	}
	entry.ID = "20270115T080000.000000000-app"
	dir := filepath.Join(data, "quarantine", entry.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "entry.json"), string(text))
	for path, row := range map[string]string{filepath.Join(dir, "app.db"): "2,'kept'", entry.Path: "3,'now'"} {
		if out, err := sqlite(t, path, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,'both'),("+row+")"); err != nil {
			t.Fatal(out, err)
		}
	}
	return data, entry
}

func TestQuarantineCommands(t *testing.T) {
	data, entry := keptEntry(t)
	got := call(t, nil, nil, "quarantine", "list", "--data-dir", data)
	for _, want := range []string{entry.ID, "n1", "at least 3 (2 not captured)", "before 2027-01-15T08:00:00Z"} {
		if got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("list lacks %q: %+v", want, got)
		}
	}
	var listed []node.Kept
	got = call(t, []string{"LSNODE_DATA_DIR=" + data}, nil, "quarantine", "list", "--json")
	if err := json.Unmarshal([]byte(got.out), &listed); err != nil || len(listed) != 1 || listed[0].Uncaptured != 2 {
		t.Errorf("list as JSON: %v, %+v", err, got)
	}
	got = call(t, nil, nil, "quarantine", "show", "2027", "--data-dir", data)
	for _, want := range []string{`INSERT INTO "t"("id", "v") VALUES(2, 'kept');`, `DELETE FROM "t" WHERE "id" IS 3;`, `-- only now: INSERT INTO "t"("id", "v") VALUES(3, 'now');`} {
		if got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("show lacks %q: %+v", want, got)
		}
	}
	if beside, _ := filepath.Glob(filepath.Join(data, "quarantine", entry.ID, "*")); len(beside) != 2 {
		t.Errorf("after it there are %v", beside)
	}
}

func TestQuarantineExport(t *testing.T) {
	data, entry := keptEntry(t)
	out := filepath.Join(t.TempDir(), "out.db")
	export := []string{"quarantine", "export", entry.ID, "-o", out, "--data-dir", data}
	if got := call(t, nil, nil, export...); got.code != 0 {
		t.Fatalf("export: %+v", got)
	}
	if rows, err := sqlite(t, out, "SELECT group_concat(id) FROM t; INSERT INTO t VALUES(9,9)"); err != nil || rows != "1,2" {
		t.Errorf("exported %s, %v", rows, err)
	}
	if got := call(t, nil, nil, export...); got.code != 1 || !strings.Contains(got.err, "--force") {
		t.Errorf("again: %+v", got)
	}
	writeFile(t, out+"-wal", "something")
	if got := call(t, nil, nil, append(export, "--force")...); got.code != 1 || !strings.Contains(got.err, "-wal") {
		t.Errorf("over a file with a WAL: %+v", got)
	}
	if err := os.Remove(out + "-wal"); err != nil {
		t.Fatal(err)
	}
	if got := call(t, nil, nil, append(export, "--force")...); got.code != 0 {
		t.Errorf("by force: %+v", got)
	}
	if rows, err := sqlite(t, out, "SELECT group_concat(id) FROM t"); err != nil || rows != "1,2" {
		t.Errorf("replaced with %s, %v", rows, err)
	}
	if left, _ := os.ReadDir(filepath.Dir(out)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestQuarantineDrop(t *testing.T) {
	data, entry := keptEntry(t)
	drop := []string{"quarantine", "drop", entry.ID, "--data-dir", data}
	if got := call(t, nil, nil, drop...); got.code != 1 || !strings.Contains(got.err, "3 (2 not captured) commits of app") {
		t.Errorf("without an answer: %+v", got)
	}
	if got := call(t, nil, nil, append(drop, "--yes")...); got.code != 0 {
		t.Errorf("drop: %+v", got)
	}
	if left, _ := os.ReadDir(filepath.Join(data, "quarantine")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if got := call(t, nil, nil, drop...); got.code != 1 || !strings.Contains(got.err, "there is none") {
		t.Errorf("again: %+v", got)
	}
}
