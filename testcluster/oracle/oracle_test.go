package oracle

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// world is a database with rows and a record with notes.
func world(t *testing.T, notes string, rows map[Key]string) (*Record, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "commits")
	if err := os.WriteFile(path, []byte(notes), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return r, database(t, rows)
}

func database(t *testing.T, rows map[Key]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE register(worker, seq, payload BLOB, crc, PRIMARY KEY(worker, seq))"); err != nil {
		t.Fatal(err)
	}
	for k, payload := range rows {
		if _, err := db.Exec("INSERT INTO register VALUES(?, ?, ?, ?)", k.Worker, k.Seq, []byte(payload), Sum([]byte(payload))); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func intent(seq int, payload string) string {
	return fmt.Sprintf("I %d %08x\n", seq, Sum([]byte(payload)))
}

func TestCheck(t *testing.T) {
	notes := "W 7\n" + intent(1, "a") + "C 1\n" + intent(2, "b") + "A 2\n" + intent(3, "c") + intent(4, "d") + "C 4\n" + intent(5, "e") + "C 5\nI 6"
	for _, test := range []struct {
		name string
		rows map[Key]string
		want Found
		ok   bool
	}{
		{"all", map[Key]string{{7, 1}: "a", {7, 4}: "d", {7, 5}: "e"}, Found{Rows: 3, Lost: []Key{{7, 3}}}, true},
		{"in doubt, there", map[Key]string{{7, 1}: "a", {7, 3}: "c", {7, 4}: "d", {7, 5}: "e"}, Found{Rows: 4, Doubted: []Key{{7, 3}}}, true},
		{"missing", map[Key]string{{7, 1}: "a"}, Found{Rows: 1, Missing: []Key{{7, 4}, {7, 5}}, Lost: []Key{{7, 3}}}, false},
		{"rolled back, there", map[Key]string{{7, 1}: "a", {7, 2}: "b", {7, 4}: "d", {7, 5}: "e"}, Found{Rows: 4, Phantom: []Key{{7, 2}}, Lost: []Key{{7, 3}}}, false},
		{"unknown", map[Key]string{{7, 1}: "a", {8, 1}: "x", {7, 4}: "d", {7, 5}: "e"}, Found{Rows: 4, Phantom: []Key{{8, 1}}, Lost: []Key{{7, 3}}}, false},
		{"other content", map[Key]string{{7, 1}: "z", {7, 4}: "d", {7, 5}: "e"}, Found{Rows: 3, Wrong: []Key{{7, 1}}, Lost: []Key{{7, 3}}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, path := world(t, notes, test.rows)
			got, err := r.Check(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if (got.Err() == nil) != test.ok {
				t.Errorf("verdict %v", got.Err())
			}
		})
	}
}

func TestFindIn(t *testing.T) {
	r, _ := world(t, "W 1\n"+intent(1, "a")+"C 1\n"+intent(2, "b")+"C 2\n"+intent(3, "c")+"C 3\n", nil)
	want := []Key{{1, 1}, {1, 2}, {1, 3}}
	copies := []string{database(t, map[Key]string{{1, 1}: "a", {1, 3}: "other"}), database(t, map[Key]string{{1, 2}: "b"})}
	left, err := r.FindIn(t.Context(), want, copies)
	if err != nil || !slices.Equal(left, []Key{{1, 3}}) {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestLogGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "commits")
	for i, wantNext := range []int64{1, 3} {
		l, err := OpenLog(path, 9)
		if err != nil {
			t.Fatal(err)
		}
		if l.Next() != wantNext {
			t.Errorf("opened for the %d. time, next is %d, want %d", i+1, l.Next(), wantNext)
		}
		for range 2 {
			seq := l.Next()
			if err := l.Intend(seq, 1); err != nil {
				t.Fatal(err)
			}
			if err := l.Committed(seq); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Read(path)
	if err != nil || r.Committed() != 4 || r.Doubtful() != 0 {
		t.Errorf("%d committed, %d in doubt, %v", r.Committed(), r.Doubtful(), err)
	}
	if _, ok := r.rows[Key{9, 4}]; !ok {
		t.Errorf("rows %v", r.rows)
	}
}

func TestRecordThatMakesNoSense(t *testing.T) {
	for _, notes := range []string{"C 1\n", "W 1\nI 1 00000000\nC 1\nA 1\n", "X\n", "W x\n", "I 1\n"} {
		path := filepath.Join(t.TempDir(), "commits")
		if err := os.WriteFile(path, []byte(notes), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("%q was read", notes)
		}
	}
}

func TestQuarantined(t *testing.T) {
	dir := t.TempDir()
	if got, err := Quarantined(dir); err != nil || len(got) != 0 {
		t.Errorf("without quarantine: %v, %v", got, err)
	}
	want := filepath.Join(dir, "quarantine", "x", "app.db")
	if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{want, want + "-wal", filepath.Join(dir, "other.db")} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Quarantined(dir); err != nil || !slices.Equal(got, []string{want}) {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}
