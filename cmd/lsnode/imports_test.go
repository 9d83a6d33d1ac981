package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lsnode/lsnode/"

// allowed says, for each part of the module, which parts it may import: cmd on
// top, then node, then cluster, archive and walstream, which is the bottom.
// Longer names come first; a part is all below it.
var allowed = []struct {
	part string
	may  []string
}{
	{"cmd/lsnode", []string{"node", "walstream", "testcluster/demo"}},
	{"node", []string{"node", "cluster", "archive", "walstream"}},
	{"cluster", []string{"cluster"}},
	{"archive", []string{"archive", "walstream"}},
	{"walstream/sqlitefile", nil},
	{"walstream", []string{"walstream"}},
	{"testcluster", []string{"testcluster", "node", "cluster", "archive", "walstream"}},
}

// sole names what a part keeps to itself. What tests a whole cluster may run a
// counterpart of its own.
var sole = map[string]string{"github.com/alecthomas/kong": "cmd/lsnode", "github.com/hashicorp/raft": "cluster", "github.com/nats-io/": "walstream"}

func below(path, part string) bool { return path == part || strings.HasPrefix(path, part+"/") }

// misplaced says what is wrong with a file of directory dir importing path, or
// nothing.
func misplaced(dir, path string) string {
	for prefix, part := range sole {
		if strings.HasPrefix(path, prefix) && !below(dir, part) && !below(dir, "testcluster") {
			return "only " + part + " may import it"
		}
	}
	target, ours := strings.CutPrefix(path, module)
	if !ours {
		return ""
	}
	for _, rule := range allowed {
		if !below(dir, rule.part) {
			continue
		}
		if slices.ContainsFunc(rule.may, func(part string) bool { return below(target, part) }) {
			return ""
		}
		return rule.part + " may import of ours: " + strings.Join(rule.may, ", ")
	}
	return "no rule says what " + dir + " may import"
}

func TestMisplaced(t *testing.T) {
	for _, tt := range []struct {
		dir, path string
		wrong     bool
	}{
		{"walstream/capture", module + "walstream/sqlitefile", false},
		{"walstream/capture", module + "cluster/state", true},
		{"walstream/sqlitefile", module + "walstream", true},
		{"cluster/lease", module + "walstream", true},
		{"node", module + "cluster/secure", false},
		{"node/api", module + "cmd/lsnode", true},
		{"cmd/lsnode", module + "testcluster/app", true},
		{"cmd/lsnode", module + "testcluster/demo", false},
		{"testcluster/app", module + "node/api", false},
		{"nodes", module + "node", true},
		{"node", "github.com/hashicorp/raft", true},
		{"cluster", "github.com/hashicorp/raft-boltdb/v2", false},
		{"node", "net/http", false},
	} {
		if got := misplaced(tt.dir, tt.path); (got != "") != tt.wrong {
			t.Errorf("%s imports %s: %q", tt.dir, tt.path, got)
		}
	}
}

// Tests may reach across, and use what the whole cluster's tests are made of.
func TestImportDirection(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || hasOwnModule(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil || dir == "." || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := misplaced(filepath.ToSlash(dir), imported); why != "" {
				t.Errorf("%s imports %s: %s", filepath.Join(dir, filepath.Base(path)), imported, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files looked at: is %s the module?", files, root)
	}
}

func hasOwnModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
