package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func registryAt(t *testing.T, cfg Config) *registry {
	t.Helper()
	r, err := openRegistry(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustScan(t *testing.T, r *registry) {
	t.Helper()
	if err := r.scan(); err != nil {
		t.Fatal(err)
	}
}

func TestWatchedDirectory(t *testing.T) {
	dir := t.TempDir()
	r := registryAt(t, Config{DataDir: t.TempDir(), DBDir: dir})
	for _, name := range []string{
		"a.db", "b.sqlite", "c.sqlite3", "a.db-wal", "a.db-shm", "notes.txt", ".hidden.db", "UPPER.DB", "a.db.bak",
	} {
		touch(t, filepath.Join(dir, name))
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "a.db"), filepath.Join(dir, "link.db")); err != nil {
		t.Fatal(err)
	}
	changed := r.changed()
	mustScan(t, r)
	within(t, changed, "news of databases")
	want := map[string]string{"a": "a.db", "b": "b.sqlite", "c": "c.sqlite3"}
	got := r.local()
	for name, file := range want {
		if got[name] != filepath.Join(dir, file) {
			t.Errorf("%s is %q", name, got[name])
		}
	}
	if len(got) != len(want) || len(r.refusals()) != 0 {
		t.Errorf("took %v, refused %v", got, r.refusals())
	}
	changed = r.changed()
	mustScan(t, r)
	select {
	case <-changed:
		t.Error("news though there is nothing new")
	default:
	}
	touch(t, filepath.Join(dir, "later.db"))
	mustScan(t, r)
	within(t, changed, "news of a later database")
}

func TestTwoFilesOfOneName(t *testing.T) {
	dir := t.TempDir()
	flag := filepath.Join(t.TempDir(), "b.db")
	r := registryAt(t, Config{DataDir: t.TempDir(), DBDir: dir, Databases: []Database{
		{Name: "b", Path: flag}, {Name: "c", Path: filepath.Join(dir, "c.db")},
	}})
	for _, name := range []string{"a.db", "a.sqlite", "b.db", "c.db"} {
		touch(t, filepath.Join(dir, name))
	}
	mustScan(t, r)
	mustScan(t, r)
	got, refused := r.local(), r.refusals()
	if got["a"] != filepath.Join(dir, "a.db") || got["b"] != flag || got["c"] != filepath.Join(dir, "c.db") {
		t.Errorf("took %v", got)
	}
	for name, other := range map[string]string{"a": "a.sqlite", "b": "b.db"} {
		if why := refused[name]; !strings.Contains(why, filepath.Join(dir, other)) || !strings.Contains(why, "rename") {
			t.Errorf("%s: refused with %q", name, why)
		}
	}
	if len(refused) != 2 {
		t.Errorf("refused %v", refused)
	}
}

func TestBadNames(t *testing.T) {
	dir := t.TempDir()
	r := registryAt(t, Config{DataDir: t.TempDir(), DBDir: dir})
	names := []string{"two words.db", strings.Repeat("x", 65) + ".db", "ä.sqlite"}
	for _, name := range names {
		touch(t, filepath.Join(dir, name))
	}
	touch(t, filepath.Join(dir, strings.Repeat("x", 64)+".db"))
	mustScan(t, r)
	if got := r.local(); len(got) != 1 {
		t.Errorf("took %v", got)
	}
	for _, name := range names {
		if why := r.refusals()[name]; !strings.Contains(why, filepath.Join(dir, name)) {
			t.Errorf("%s: refused with %q", name, why)
		}
	}
}

// Where a copy was placed is remembered, so that a start with other flags finds
// it again; what the operator says goes before it.
func TestPlacesAreRemembered(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	path := func(r *registry, name string) string {
		t.Helper()
		p, err := r.path(name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := registryAt(t, Config{DataDir: data})
	placed := path(first, "app")
	if want := filepath.Join(data, "db", "app.db"); placed != want {
		t.Fatalf("placed at %s, want %s", placed, want)
	}
	if _, err := os.Stat(filepath.Dir(placed)); err != nil {
		t.Error(err)
	}
	again := registryAt(t, Config{DataDir: data, DBDir: dir})
	if got := path(again, "app"); got != placed {
		t.Errorf("after a start with another directory: %s, want %s", got, placed)
	}
	if got, want := path(again, "other"), filepath.Join(dir, "other.db"); got != want {
		t.Errorf("a new one goes to %s, want %s", got, want)
	}
	flagged := registryAt(t, Config{DataDir: data, Databases: []Database{{Name: "app", Path: "/elsewhere/app.db"}}})
	if got := path(flagged, "app"); got != "/elsewhere/app.db" {
		t.Errorf("with a flag: %s", got)
	}
}

func TestRegistryRefusesWhatItDoesNotKnow(t *testing.T) {
	for what, text := range map[string]string{"a newer version": `{"version":2}`, "rubbish": `{`} {
		data := t.TempDir()
		if err := os.WriteFile(filepath.Join(data, "databases.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openRegistry(Config{DataDir: data}); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}
