package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pagesOf is a database in memory.
type pagesOf struct {
	pages [][]byte
	err   error // of reading the last one
}

func (p pagesOf) PageCount() uint32 { return uint32(len(p.pages)) }

func (p pagesOf) ReadPage(no uint32, buf []byte) error {
	if p.err != nil && int(no) == len(p.pages) {
		return p.err
	}
	copy(buf, p.pages[no-1])
	return nil
}

// database4K is a real one, with a fenced page 1.
func database4K(t *testing.T) pagesOf {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	table(t, path)
	sqlite(t, path, "INSERT INTO t VALUES(1),(2); PRAGMA wal_checkpoint(TRUNCATE)")
	content, err := os.ReadFile(path) // nothing in this process has it open
	must(t, err)
	var p pagesOf
	for ; len(content) > 0; content = content[4096:] {
		p.pages = append(p.pages, content[:4096])
	}
	p.pages[0][18] = 76
	return p
}

func entryAt(database string, found time.Time) Kept {
	return Kept{Database: database, Node: "n1", From: "a", To: "b", Logged: 2, Uncaptured: 1, Exact: true, Found: found}
}

func TestQuarantineKeeps(t *testing.T) {
	q := Quarantine{dir: filepath.Join(t.TempDir(), "quarantine")}
	if entries, err := q.List(); err != nil || len(entries) != 0 {
		t.Fatalf("before anything: %v, %v", entries, err)
	}
	now := time.Now()
	path, err := q.keep(entryAt("app", now), database4K(t), 4096)
	must(t, err)
	_, err = q.keep(entryAt("app", now.Add(time.Second)), database4K(t), 4096)
	must(t, err)
	_, err = q.keep(entryAt("other", now), database4K(t), 4096)
	must(t, err)
	entries, err := Quarantine{dir: q.dir}.List()
	must(t, err)
	if len(entries) != 3 || entries[0].Database != "app" || entries[1].Database != "other" || entries[2].Database != "app" {
		t.Fatalf("listed %+v", entries)
	}
	if e := entries[0]; e.Commits() != 3 || !e.Exact || e.From != "a" || e.To != "b" || e.Node != "n1" || !e.Found.Equal(now) {
		t.Errorf("entry %+v", e)
	}
	// The copy is an ordinary database, readable where nothing can be written.
	copied := filepath.Join(path, entries[0].File)
	must(t, os.Chmod(path, 0o500))
	defer os.Chmod(path, 0o700)
	wantRows(t, copied, "1 2")
	if beside, _ := filepath.Glob(copied + "-*"); len(beside) != 0 {
		t.Errorf("beside it: %v", beside)
	}
}

// What a crash, or a full disk, has cut off is never listed, and stands in the
// way of nothing.
func TestPartialEntryIsNotListed(t *testing.T) {
	q := Quarantine{dir: filepath.Join(t.TempDir(), "quarantine")}
	broken := database4K(t)
	broken.err = errors.New("disk on fire")
	now := time.Now()
	if _, err := q.keep(entryAt("app", now), broken, 4096); !errors.Is(err, broken.err) {
		t.Errorf("kept with %v", err)
	}
	if left, _ := os.ReadDir(q.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// A crash in the middle leaves the partial directory, with or without its parts.
	partial := filepath.Join(q.dir, ".partial-20260101T000000.000000000-app")
	must(t, os.MkdirAll(partial, 0o700))
	must(t, writeSynced(filepath.Join(partial, "app.db"), []byte("half")))
	must(t, writeSynced(filepath.Join(partial, "entry.json"), []byte(`{"version":1,"database":"app"}`)))
	if entries, err := q.List(); err != nil || len(entries) != 0 {
		t.Errorf("listed %+v, %v", entries, err)
	}
	if _, err := q.keep(entryAt("app", now), database4K(t), 4096); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if entries, err := q.List(); err != nil || len(entries) != 1 {
		t.Errorf("listed %+v, %v", entries, err)
	}
}

func TestQuarantineOfAnotherVersion(t *testing.T) {
	q := Quarantine{dir: t.TempDir()}
	dir := filepath.Join(q.dir, "20260101T000000.000000000-app")
	must(t, os.Mkdir(dir, 0o700))
	must(t, writeSynced(filepath.Join(dir, "entry.json"), []byte(`{"version":2}`)))
	if _, err := q.List(); err == nil || !strings.Contains(err.Error(), filepath.Base(dir)) {
		t.Errorf("listed with %v", err)
	}
}

func TestDoubtSurvives(t *testing.T) {
	d := &database{dir: filepath.Join(t.TempDir(), "app")}
	check := func(want doubt) {
		t.Helper()
		if why, err := (&database{dir: d.dir}).doubt(); err != nil || why != want {
			t.Errorf("doubt %q, %v; want %q", why, err, want)
		}
	}
	check(noDoubt)
	must(t, d.setDoubt(reigned))
	check(reigned)
	must(t, d.setDoubt(repairing))
	check(repairing)
	must(t, d.clearDoubt())
	check(noDoubt)
	must(t, d.clearDoubt())
	must(t, writeSynced(d.doubtPath(), []byte("something else\n")))
	if _, err := d.doubt(); err == nil {
		t.Error("a doubt that is not known was taken for none")
	}
}
