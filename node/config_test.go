package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseDatabase(t *testing.T) {
	tests := []struct {
		in   string
		want Database
		err  string
	}{
		{in: "/data/app.db", want: Database{"app", "/data/app.db"}},
		{in: "app.sqlite3", want: Database{"app", "app.sqlite3"}},
		{in: "app", want: Database{"app", "app"}},
		{in: "/data/app.v2.db", want: Database{"app.v2", "/data/app.v2.db"}},
		{in: "main=/data/app.db", want: Database{"main", "/data/app.db"}},
		{in: "main=a=b.db", want: Database{"main", "a=b.db"}},
		{in: "/data/a=b.db", want: Database{"a=b", "/data/a=b.db"}},
		{in: "./a=b", want: Database{"a=b", "./a=b"}},
		{in: "/data/.db", want: Database{".db", "/data/.db"}},
		{in: "main=", err: `parse database "main=": path is missing after "main="`},
		{in: "", err: "parse database: path is missing"},
	}
	for _, tt := range tests {
		got, err := ParseDatabase(tt.in)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%q: %+v, %v; want %+v, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func valid() Config {
	return Config{Name: "n1", DataDir: "/data/n1", Databases: []Database{{"app", "/srv/app.db"}, {"log", "/srv/log.db"}}}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		err    string // empty: none
	}{
		{"as it is", func(*Config) {}, ""},
		{"all set", func(c *Config) {
			c.Listen, c.Advertise, c.HTTP, c.NATS = "[::]:0", "db1.example.org:7400", ":7480", "nats://10.0.0.9:4222"
			c.Peers, c.Timing, c.FileMode, c.Nonvoter = []string{"n2:7400", "[fe80::1]:7400"}, "wan", 0o660, true
		}, ""},
		{"no data dir", func(c *Config) { c.DataDir = "" }, "data dir is missing: name a directory of this node's own with --data-dir"},
		{"name", func(c *Config) { c.Name = "n 1" }, `name "n 1": want 1 to 64 letters, digits, dots, underscores or hyphens`},
		{"long name", func(c *Config) { c.Name = strings.Repeat("n", 65) }, `want 1 to 64 letters`},
		{"listen", func(c *Config) { c.Listen = "7400" }, `listen address "7400": want HOST:PORT`},
		{"port", func(c *Config) { c.Listen = ":70000" }, `listen address ":70000": port "70000": want a number up to 65535`},
		{"http", func(c *Config) { c.HTTP = "localhost" }, `http address "localhost": want HOST:PORT`},
		{"advertise all", func(c *Config) { c.Advertise = "0.0.0.0:7400" }, `advertised address "0.0.0.0:7400": want a host that other nodes can reach`},
		{"advertise no port", func(c *Config) { c.Advertise = "n1:0" }, `advertised address "n1:0": want a port other than 0`},
		{"peer", func(c *Config) { c.Peers = []string{"n2:7400", ":7400"} }, `peer ":7400": want a host that other nodes can reach`},
		{"nats", func(c *Config) { c.NATS = "10.0.0.9:4222" }, `nats "10.0.0.9:4222": want nats://HOST:PORT or tls://HOST:PORT`},
		{"timing", func(c *Config) { c.Timing = "fast" }, `timing "fast": want lan or wan`},
		{"exec on", func(c *Config) { c.Exec, c.ExecOn = "app", "follower" }, `exec on "follower": want always or primary`},
		{"executable", func(c *Config) { c.FileMode = 0o755 }, `file mode 0755: want permission bits such as 0660`},
		{"unreadable", func(c *Config) { c.FileMode = 0o060 }, `file mode 060: want permission bits such as 0660`},
		{"one name twice", func(c *Config) { c.Databases[1].Name = "app" }, `databases /srv/app.db and /srv/log.db have one name, "app": name one of them otherwise with NAME=PATH`},
		{"one default name twice", func(c *Config) { c.Databases = []Database{{Path: "/a/app.db"}, {Path: "/b/app.sqlite"}} }, `databases /a/app.db and /b/app.sqlite have one name, "app"`},
		{"one file twice", func(c *Config) { c.Databases[1].Path = "/srv/../srv/app.db" }, `database /srv/app.db has two names, "app" and "log": give it once`},
		{"name from path", func(c *Config) { c.Databases = []Database{{Path: "/srv/my app.db"}} }, `database /srv/my app.db: name "my app": want 1 to 64 letters, digits, dots, underscores or hyphens; name it with NAME=PATH`},
		{"name that climbs", func(c *Config) { c.Databases[0].Name = ".." }, `database /srv/app.db: name "..": want`},
		{"no path", func(c *Config) { c.Databases[0].Path = "" }, `database "app": path is missing`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := valid()
			tt.change(&c)
			err := c.Validate()
			if tt.err == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got  %v\nwant %s", err, tt.err)
			}
		})
	}
}

func TestValidateSaysAllAtOnce(t *testing.T) {
	err := Config{Name: "n 1", Listen: "x", Timing: "y"}.Validate()
	for _, want := range []string{"name", "data dir", "listen", "timing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %s in %v", want, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := Config{DataDir: "x", Databases: []Database{{Path: "app.db"}}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	wd, _ := os.Getwd()
	want := Config{
		Name: host, DataDir: filepath.Join(wd, "x"), Listen: "0.0.0.0:7400", HTTP: "127.0.0.1:7480", Timing: "lan",
		FileMode: 0o644, Version: "devel",
	}
	if c.Name != want.Name || c.DataDir != want.DataDir || c.Listen != want.Listen || c.HTTP != want.HTTP || c.Timing != want.Timing ||
		c.FileMode != want.FileMode || c.Version != want.Version || c.Logger == nil || c.DBDir != "" || c.Advertise != "" {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if c.Databases[0] != (Database{"app", filepath.Join(wd, "app.db")}) {
		t.Errorf("database %+v", c.Databases[0])
	}
	if got := c.CopyPath("new"); got != filepath.Join(wd, "x", "db", "new.db") {
		t.Errorf("copy goes to %s", got)
	}
	c.DBDir = "/srv"
	if got := c.CopyPath("new"); got != "/srv/new.db" {
		t.Errorf("copy goes to %s", got)
	}
}

// Filling in defaults must not change the caller's list.
func TestDefaultsCopy(t *testing.T) {
	given := []Database{{Path: "app.db"}}
	if _, err := (Config{Name: "n", DataDir: "x", Databases: given}).withDefaults(); err != nil || given[0] != (Database{Path: "app.db"}) {
		t.Errorf("%+v, %v", given, err)
	}
}
