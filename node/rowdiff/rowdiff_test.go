package rowdiff

import (
	"bytes"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sqlite runs the sqlite3 shell, a process of its own.
func sqlite(t *testing.T, path, sql string) string {
	t.Helper()
	cmd := exec.Command("sqlite3", "-bail", path)
	cmd.Stdin = strings.NewReader(sql)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}

// pair makes two databases of the same beginning.
func pair(t *testing.T, both, kept, now string) (keptPath, nowPath string) {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("needs the sqlite3 shell")
	}
	keptPath, nowPath = filepath.Join(t.TempDir(), "kept 1%?.db"), filepath.Join(t.TempDir(), "now.db")
	sqlite(t, keptPath, both+";"+kept)
	sqlite(t, nowPath, both+";"+now)
	return keptPath, nowPath
}

func compare(t *testing.T, kept, now string, limit int) (Report, string) {
	t.Helper()
	var out bytes.Buffer
	w := NewOut(&out)
	report, err := Compare(t.Context(), kept, now, w, Options{Limit: limit})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return report, out.String()
}

const kinds = `
CREATE TABLE rows(a, b);
CREATE TABLE ids(id INTEGER PRIMARY KEY, v);
CREATE TABLE named(name TEXT PRIMARY KEY, v, twice AS (v*2), thrice AS (v*3) STORED);
CREATE TABLE pairs(a TEXT COLLATE NOCASE, b INT, v, PRIMARY KEY(b, a)) WITHOUT ROWID;
CREATE TABLE holes(k TEXT PRIMARY KEY, v);
CREATE TABLE taken(rowid TEXT, _rowid_ TEXT, "odd ""name" BLOB);
CREATE TABLE types(v);
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, at TIMESTAMP, yes BOOLEAN);
CREATE VIEW many AS SELECT * FROM rows;
INSERT INTO rows VALUES(1,'x'),(2,'y'),(3,'z');
INSERT INTO ids VALUES(10,'x'),(20,'y'),(-5,'z');
INSERT INTO named(name,v) VALUES('a',1),('b',2);
INSERT INTO pairs VALUES('a',1,'x'),('b',1,'y'),('a',2,'z');
INSERT INTO holes VALUES(NULL,1),(NULL,2),('k',3);
INSERT INTO taken VALUES('r','s',x'00ff');
INSERT INTO types VALUES(1),('1'),(1.0),(x'31'),(NULL),(''),(x''),('it''s'),(char(0,27,10)||'é');
INSERT INTO counted(at,yes) VALUES('2026-01-01 00:00:00',1);`

// The statements make the database what the kept copy is, for every kind of
// table, and comments never do anything.
func TestStatementsMakeTheKeptCopy(t *testing.T) {
	kept, now := pair(t, kinds, `
UPDATE rows SET b='kept' WHERE a=1; INSERT INTO rows VALUES(4,'only kept');
DELETE FROM ids WHERE id=20; INSERT INTO ids VALUES(30,'kept');
UPDATE named SET v=9 WHERE name='a'; INSERT INTO named(name,v) VALUES('c',3);
UPDATE pairs SET v='kept' WHERE b=2; INSERT INTO pairs VALUES('c',1,NULL);
UPDATE holes SET v=9 WHERE v=2;
INSERT INTO taken VALUES('r2','s2',x'01');
UPDATE types SET v=v||char(10)||'; DROP TABLE rows; --' WHERE v='it''s'; UPDATE types SET v=9e999 WHERE v='';
UPDATE types SET v='2' WHERE v='1'; UPDATE types SET v=0.1 WHERE typeof(v)='real'; UPDATE types SET v=CAST(x'ff41' AS TEXT) WHERE v IS NULL;
INSERT INTO counted(at,yes) VALUES('2026-01-02 00:00:00',0);
CREATE TABLE fresh(a, b PRIMARY KEY); INSERT INTO fresh VALUES(1,2); CREATE INDEX byb ON rows(b);`, `
INSERT INTO rows VALUES(4,'only now'),(5,'and this');
UPDATE ids SET v='now'||char(10)||'DROP TABLE rows;' WHERE id=10;
INSERT INTO named(name,v) VALUES('d',4);
DELETE FROM pairs WHERE b=2; INSERT INTO pairs VALUES('D',1,NULL);
CREATE TABLE late(a); INSERT INTO late VALUES(1);`)
	report, sql := compare(t, kept, now, 0)
	if report.Schema != 3 || report.Equal() {
		t.Errorf("found %+v\n%s", report, sql)
	}
	for _, table := range report.Tables {
		if table.Err != nil || table.LeftOut != 0 {
			t.Errorf("table %+v", table)
		}
	}
	sqlite(t, now, sql+"; DROP TABLE late;")
	if again, rest := compare(t, kept, now, 0); !again.Equal() || strings.Contains(rest, ";") {
		t.Errorf("after %s\n%+v\n%s", sql, again, rest)
	}
	if got := sqlite(t, now, "SELECT group_concat(quote(b),' ') FROM (SELECT b FROM rows ORDER BY a)"); got != "'kept' 'y' 'z' 'only kept'" {
		t.Errorf("rows are %s", got)
	}
}

func TestEqualDatabases(t *testing.T) {
	kept, now := pair(t, kinds, "", "PRAGMA journal_mode=WAL; VACUUM")
	if report, sql := compare(t, kept, now, 0); !report.Equal() || report.Compared != 9 || sql != "" {
		t.Errorf("%+v\n%s", report, sql)
	}
}

// Encodings are no difference, and what is beyond the limit is counted.
func TestLimitCountsTheRest(t *testing.T) {
	dir := t.TempDir()
	kept, now := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	const rows = "CREATE TABLE t(a); INSERT INTO t SELECT 'é'||value FROM generate_series(1,1000);"
	sqlite(t, kept, "PRAGMA encoding='UTF-16le';"+rows+"UPDATE t SET a='q' WHERE rowid>900")
	sqlite(t, now, rows+"DELETE FROM t WHERE rowid<=10")
	report, sql := compare(t, kept, now, 25)
	want := Table{Name: "t", Kept: 10, Changed: 100, LeftOut: 85}
	if len(report.Tables) != 1 || report.Tables[0] != want {
		t.Fatalf("found %+v, want %+v", report.Tables, want)
	}
	if n := strings.Count(sql, ";\n"); n != 25 || !strings.Contains(sql, "85 more rows") {
		t.Errorf("%d statements: %s", n, sql)
	}
}

// Columns that one side has gained are told, the others compared.
func TestColumnsDiffer(t *testing.T) {
	kept, now := pair(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1,'x'),(2,'y')",
		"UPDATE t SET a='kept' WHERE id=2", "ALTER TABLE t ADD COLUMN b DEFAULT 5")
	report, sql := compare(t, kept, now, 0)
	if report.Schema != 1 || len(report.Tables) != 1 || report.Tables[0].Changed != 1 || !strings.Contains(sql, `UPDATE "t" SET "a" = 'kept' WHERE "id" IS 2;`) {
		t.Errorf("%+v\n%s", report, sql)
	}
}

// A damaged table is told and keeps no other from being compared.
func TestDamagedTable(t *testing.T) {
	kept, now := pair(t, "CREATE TABLE a(v); INSERT INTO a VALUES(1); CREATE TABLE b(v); INSERT INTO b VALUES(1)", "", "INSERT INTO b VALUES(2)")
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+now, "bs=4096", "seek=1", "count=1", "conv=notrunc").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	report, sql := compare(t, kept, now, 0)
	if len(report.Tables) != 2 || report.Tables[0].Err == nil || report.Tables[1].Now != 1 {
		t.Errorf("%+v\n%s", report, sql)
	}
}

func TestLiteral(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  string
	}{
		{nil, "NULL"}, {int64(math.MinInt64), "-9223372036854775808"}, {1.0, "1.0"}, {1e300, "1e+300"}, {math.Inf(-1), "-9e999"},
		{"", "''"}, {"it's", "'it''s'"}, {"a\nb", "('a' || char(10) || 'b')"}, {"\x1b", "char(27)"}, {"\xff", "CAST(X'FF' AS TEXT)"},
		{[]byte{}, "X''"}, {[]byte{0, 255}, "X'00FF'"},
	} {
		if got := literal(tt.value); got != tt.want {
			t.Errorf("literal(%#v) = %s, want %s", tt.value, got, tt.want)
		}
	}
}
