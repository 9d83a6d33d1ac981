package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/node"
)

// outcome is what a call of the program leaves.
type outcome struct {
	code     int
	out, err string
	config   *node.Config // with which a node was run; nil: none was
}

// call runs the program in process, with the environment given as "KEY=value".
// A node that it runs ends at once, with runErr.
func call(t *testing.T, environ []string, runErr error, args ...string) outcome {
	t.Helper()
	var o outcome
	var out, errOut bytes.Buffer
	a := &app{ctx: t.Context(), out: &out, err: &errOut, settings: &settings{environ: environ}}
	a.runNode = func(_ context.Context, cfg node.Config) error {
		o.config = &cfg
		return runErr
	}
	o.code = a.main(args)
	o.out, o.err = out.String(), errOut.String()
	return o
}

func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitStatus(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	tests := []struct {
		args string
		code int
		err  string // part of standard error
	}{
		{"--help", 0, ""},
		{"run --help", 0, ""},
		{"wait --help", 0, ""}, // its arguments are missing, and nobody minds
		{"version", 0, ""},
		{"run --data-dir d --name n1", 0, `"msg":"stopped"`},
		{"join --data-dir d --name n1 --peers n2:7400", 0, `"msg":"stopped"`},
		{"", 2, `expected one of "run", "join", "status"`},
		{"statsu", 2, `unexpected argument statsu, did you mean "status"?`},
		{"restore app", 2, "unexpected argument restore"},
		{"run extra --data-dir d", 2, "unexpected argument extra"},
		{"run --data-dri d", 2, `unknown flag --data-dri, did you mean`},
		{"run --archive file:///a", 2, "unknown flag --archive"},
		{"run", 2, "data dir is missing"},
		{"run --data-dir d --timing fast", 2, `--timing must be one of "lan","wan" but got "fast"`},
		{"run --data-dir d --log-level loud", 2, "--log-level must be one of"},
		{"run --data-dir d --file-mode 0888", 2, "--file-mode: want permission bits in octal, such as 0660"},
		{"run --data-dir d --file-mode 0755", 2, "file mode 0755"},
		{"run --data-dir d --peers n2:7400", 2, "unknown flag --peers"},
		{"run --data-dir d --db a/app.db --db b/app.db", 2, `have one name, "app"`},
		{"run --data-dir d --db main=", 2, "path is missing"},
		{"run --data-dir d --token t --token-file f", 2, "--token and --token-file are both given"},
		{"run --data-dir d --config " + missing, 2, "read configuration: open " + missing + ": no such file or directory"},
		{"run --data-dir d --token-file " + missing, 1, "read token: open " + missing},
		{"join --data-dir d", 2, "join a cluster: no node of it is named: give --peers HOST:PORT"},
		{"join --data-dir d --peers 7400", 2, `peer "7400": want HOST:PORT`},
		{"status --data-dir " + dir, 1, "find the node of data dir " + dir},
		{"status --http 7480", 2, `read address "7480": want HOST:PORT`},
		{"wait app", 2, `expected "<bookmark>"`},
		{"wait app lsb1-xyz", 2, "not a bookmark"},
		{"wait app lsb1-xyz --timeout soon", 2, "--timeout"},
		{"remove", 2, `expected "<node>"`},
		{"switchover", 2, "this needs the cluster's token: give --data-dir of a node on this host, or --token-file"},
		{"leave --http 127.0.0.1:1", 2, "this needs the cluster's token"},
		{"switchover --http 127.0.0.1:1 --data-dir " + dir, 1, dir + " is the data dir of no node"},
		{"release", 2, `expected "<path> ..."`},
		{"release " + missing, 1, "open database " + missing + ": it does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			got := call(t, nil, nil, strings.Fields(tt.args)...)
			if got.code != tt.code || !strings.Contains(got.err, tt.err) {
				t.Errorf("exit status %d, want %d; stderr %q, want %q in it", got.code, tt.code, got.err, tt.err)
			}
			if tt.code != 0 && got.out != "" {
				t.Errorf("stdout %q", got.out)
			}
			if tt.code == 2 && !strings.Contains(got.err, `--help" says`) {
				t.Errorf("no word about help: %q", got.err)
			}
		})
	}
}

func TestNodeFails(t *testing.T) {
	got := call(t, nil, errors.New("lock data dir d: another process has it"), "run", "--name", "n1", "--data-dir", "d")
	if got.code != 1 || got.err != "lsnode: run node n1: lock data dir d: another process has it\n" {
		t.Errorf("%+v", got)
	}
}

func TestHelpNamesWhatThereIs(t *testing.T) {
	got := call(t, nil, nil, "--help")
	for _, command := range []string{"run", "join", "status", "wait", "switchover", "leave", "remove", "release", "demo", "version"} {
		if !strings.Contains(got.out, "\n  "+command+" ") {
			t.Errorf("nothing about %s in %s", command, got.out)
		}
	}
	if strings.Contains(got.out, "demo-app") {
		t.Error("demo-app is shown")
	}
	flags := strings.Join(strings.Fields(call(t, nil, nil, "run", "--help").out), " ")
	for _, want := range []string{"--listen=HOST:PORT", "Default: 0.0.0.0:7400. ($LSNODE_LISTEN)", "($LSNODE_DATA_DIR)", "--db=[NAME=]PATH"} {
		if !strings.Contains(flags, want) {
			t.Errorf("no %q in %s", want, flags)
		}
	}
}

func TestVersion(t *testing.T) {
	got := call(t, nil, nil, "version")
	if !strings.HasPrefix(got.out, "lsnode devel") || !strings.Contains(got.out, "\nSQLite 3.") || got.err != "" {
		t.Errorf("%+v", got)
	}
}
