package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/node"
)

// plain is a configuration without what differs from run to run.
func plain(cfg node.Config) node.Config {
	cfg.Logger, cfg.Version, cfg.Guard = nil, "", nil
	return cfg
}

// byDefault is what "run --name n1 --data-dir d" gives.
func byDefault() node.Config {
	return node.Config{Name: "n1", DataDir: "d", Listen: "0.0.0.0:7400", HTTP: "127.0.0.1:7480", Timing: "lan", ExecOn: "always", LogBytes: 1 << 30, AuditInterval: 24 * time.Hour, FileMode: 0o644}
}

func TestConfig(t *testing.T) {
	token := writeFile(t, filepath.Join(t.TempDir(), "token"), "lsn1-file\n")
	tests := []struct {
		name    string
		args    string
		environ []string
		file    string
		want    func(*node.Config) // changes byDefault
	}{
		{"defaults", "run --name n1 --data-dir d", nil, "", func(*node.Config) {}},
		{"flags", "run --name n1 --data-dir d --db app.db --db main=/srv/a,b.db --db-dir /srv --listen :7 --advertise n1:7 --http :8 --nats nats://n:4222 --token lsn1-t --nonvoter --timing wan --file-mode 0660 --file-group www", nil, "", func(c *node.Config) {
			c.Databases = []node.Database{{Name: "app", Path: "app.db"}, {Name: "main", Path: "/srv/a,b.db"}}
			c.DBDir, c.Listen, c.Advertise, c.HTTP, c.NATS, c.Token = "/srv", ":7", "n1:7", ":8", "nats://n:4222", "lsn1-t"
			c.Nonvoter, c.Timing, c.FileMode, c.FileGroup = true, "wan", 0o660, "www"
		}},
		{"environment", "run", []string{"LSNODE_NAME=n1", "LSNODE_DATA_DIR=d", "LSNODE_DB=app.db,main=/srv/m.db", "LSNODE_NONVOTER=true", "LSNODE_FILE_MODE=0660", "LSNODE_TOKEN=", "LSNODE_TOKEN_FILE=" + token}, "", func(c *node.Config) {
			c.Databases = []node.Database{{Name: "app", Path: "app.db"}, {Name: "main", Path: "/srv/m.db"}}
			c.Nonvoter, c.FileMode, c.Token = true, 0o660, "lsn1-file"
		}},
		{"file", "run", nil, "# a node\nname: n1\ndata-dir: d\ndb:\n  - app.db\n  - main=/srv/a,b.db\nnonvoter: true\nfile-mode: 0660\nlog-level: debug\npeers: [n2:7400]\n", func(c *node.Config) {
			c.Databases = []node.Database{{Name: "app", Path: "app.db"}, {Name: "main", Path: "/srv/a,b.db"}}
			c.Nonvoter, c.FileMode = true, 0o660
		}},
		{"a single one for a list", "run", nil, "name: n1\ndata-dir: d\ndb: app.db\n", func(c *node.Config) {
			c.Databases = []node.Database{{Name: "app", Path: "app.db"}}
		}},
		{"environment over file", "run", []string{"LSNODE_NAME=n1", "LSNODE_DB=env.db"}, "name: n9\ndata-dir: d\ndb: [a.db, b.db]\ntiming: wan\n", func(c *node.Config) {
			c.Databases, c.Timing = []node.Database{{Name: "env", Path: "env.db"}}, "wan"
		}},
		{"flag over both", "run --name n1 --db flag.db --timing lan", []string{"LSNODE_NAME=n8", "LSNODE_DB=env.db"}, "name: n9\ndata-dir: d\ndb: [a.db]\ntiming: wan\n", func(c *node.Config) {
			c.Databases = []node.Database{{Name: "flag", Path: "flag.db"}}
		}},
		{"false in the environment", "run", []string{"LSNODE_NONVOTER=false"}, "name: n1\ndata-dir: d\nnonvoter: true\n", func(*node.Config) {}},
		{"other programs' variables", "run --name n1 --data-dir d", []string{"LSNODE_SERVICE_HOST=10.0.0.1", "LSNODE_PORT=tcp://10.0.0.1:7400"}, "", func(*node.Config) {}},
		{"join", "join --name n1 --data-dir d --peers n2:7400,n3:7400 --peers n4:7400 --replace", nil, "", func(c *node.Config) {
			c.Peers, c.Replace = []string{"n2:7400", "n3:7400", "n4:7400"}, true
		}},
		{"join from file", "join", []string{"LSNODE_PEERS=n2:7400,n3:7400"}, "name: n1\ndata-dir: d\nreplace: true\n", func(c *node.Config) {
			c.Peers, c.Replace = []string{"n2:7400", "n3:7400"}, true
		}},
		{"empty file", "run --name n1 --data-dir d", nil, "\n", func(*node.Config) {}},
		{"only comments", "run --name n1 --data-dir d", nil, "# nothing\n---\n# here\n", func(*node.Config) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			if tt.file != "" {
				args = append(args, "--config", writeFile(t, filepath.Join(t.TempDir(), "lsnode.yml"), tt.file))
			}
			got := call(t, tt.environ, nil, args...)
			if got.code != 0 || got.config == nil {
				t.Fatalf("exit status %d: %s", got.code, got.err)
			}
			want := byDefault()
			tt.want(&want)
			if have := plain(*got.config); !reflect.DeepEqual(have, want) {
				t.Errorf("got  %+v\nwant %+v", have, want)
			}
			if strings.Contains(got.err, "means nothing") {
				t.Errorf("warned: %s", got.err)
			}
		})
	}
}

func TestConfigFileErrors(t *testing.T) {
	tests := []struct{ name, file, err string }{
		{"unknown key", "name: n1\ndata_dir: d\n", `FILE:2: unknown key "data_dir"; did you mean "data-dir"?`},
		{"mistyped key", "\n\nlisen: :7400\n", `FILE:3: unknown key "lisen"; did you mean "listen"?`},
		{"far key", "databases: [app.db]\n", `FILE:1: unknown key "databases"`},
		{"key of a list", "archive: x\n", `FILE:1: unknown key "archive"`},
		{"the file in itself", "config: other.yml\n", `FILE:1: unknown key "config"`},
		{"help", "help: true\n", `FILE:1: unknown key "help"`},
		{"twice", "name: n1\nlisten: :1\nname: n2\n", `FILE:3: key "name" is given twice, first in line 1`},
		{"no value", "name: n1\nlisten:\n", `FILE:2: listen: value is missing`},
		{"a list for one", "name: [n1, n2]\n", `FILE:1: name: want one value, not a list`},
		{"a mapping for one", "name:\n  x: y\n", `FILE:1: name: want a plain value or a list of such`},
		{"nested list", "db:\n  - app.db\n  - [b.db]\n", `FILE:1: db: line 3: want a plain value`},
		{"no mapping", "- name\n", `FILE:1: want lines of the form KEY: VALUE`},
		{"a word", "name\n", `FILE:1: want lines of the form KEY: VALUE`},
		{"no YAML", "name: [n1\n", `parse FILE: `},
		{"two documents", "name: n1\n---\nname: n2\n", `parse FILE: `},
		{"bad switch", "nonvoter: perhaps\ndata-dir: d\n", `bool value must be true, 1, yes, false, 0 or no but got "perhaps"`},
		{"too large", "# " + strings.Repeat("x", maxConfigFile), `read configuration FILE: it is larger than 1048576 bytes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, filepath.Join(t.TempDir(), "lsnode.yml"), tt.file)
			got := call(t, nil, nil, "run", "--config", path)
			if want := strings.ReplaceAll(tt.err, "FILE", path); got.code != 2 || !strings.Contains(got.err, want) || got.config != nil {
				t.Errorf("exit status %d, %s\nwant %s", got.code, got.err, want)
			}
		})
	}
	// Named in the environment, and with an equals sign, it is the same file.
	path := writeFile(t, filepath.Join(t.TempDir(), "lsnode.yml"), "nmae: n1\n")
	for _, got := range []outcome{call(t, []string{"LSNODE_CONFIG=" + path}, nil, "run"), call(t, nil, nil, "run", "--config="+path)} {
		if !strings.Contains(got.err, path+`:1: unknown key "nmae"; did you mean "name"?`) {
			t.Error(got.err)
		}
	}
}

// Whatever is in the file: an error or values, in time and without a panic.
func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{"name: n1\n", "db: [a, b]\n", "db:\n- a\n", "&a name: *a\n", "name: !!binary x\n", "? [x]\n: y\n", "a: &a [*a]", "---\n", "name: |\n x\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		values, err := parseFile("f.yml", []byte(body), []string{"name", "db"})
		if err != nil && !strings.Contains(err.Error(), "f.yml") {
			t.Errorf("the error doesn't name the file: %v", err)
		}
		for key, v := range values {
			if key != "name" && key != "db" || !v.list && len(v.values) != 1 {
				t.Errorf("%q: %+v", key, v)
			}
		}
	})
}

func TestMisspeltVariables(t *testing.T) {
	got := call(t, []string{"LSNODE_DATADIR=x", "LSNODE_PEER=y", "LSNODE_LONG=1", "PATH=/bin"}, nil, "run", "--name", "n1", "--data-dir", "d")
	for _, want := range []string{
		"LSNODE_DATADIR is set and means nothing; did you mean LSNODE_DATA_DIR?",
		"LSNODE_PEER is set and means nothing; did you mean LSNODE_PEERS?",
	} {
		if !strings.Contains(got.err, want) {
			t.Errorf("no %q in %s", want, got.err)
		}
	}
	if strings.Contains(got.err, "LSNODE_LONG") || got.code != 0 {
		t.Errorf("exit status %d, %s", got.code, got.err)
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ac", 1}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// The log goes to standard error, as JSON where that is no terminal, from the
// level on that was asked for.
func TestLog(t *testing.T) {
	if got := call(t, nil, nil, "run", "--name", "n1", "--data-dir", "d"); !strings.HasPrefix(got.err, `{"time":`) || got.out != "" {
		t.Errorf("%+v", got)
	}
	if got := call(t, nil, nil, "run", "--name", "n1", "--data-dir", "d", "--log-level", "error"); got.err != "" {
		t.Errorf("%+v", got)
	}
}

// Nothing here makes a data dir: that is the node's.
func TestNothingIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	call(t, nil, nil, "run", "--name", "n1", "--data-dir", dir)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("stat: %v, want %v", err, fs.ErrNotExist)
	}
}
