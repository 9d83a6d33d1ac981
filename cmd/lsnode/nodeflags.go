package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/lsnode/lsnode/node"
	"github.com/lsnode/lsnode/node/api"
)

// nodeFlags are the flags of a node that runs, however it came into its cluster.
type nodeFlags struct {
	Name          string        `help:"Name of this node, for people; unique among live nodes. Default: the host's name." placeholder:"NAME"`
	DataDir       string        `help:"Directory of this node's own state; made if absent." placeholder:"DIR"`
	DB            []string      `name:"db" help:"A SQLite file to replicate; repeat for more. The name is for the whole cluster, by default the file's without extension." placeholder:"[NAME=]PATH" sep:"none"`
	DBDir         string        `name:"db-dir" help:"Replicate the *.db, *.sqlite and *.sqlite3 files of this directory, new ones too; copies of other nodes' databases go there. Default for copies: DATA-DIR/db." placeholder:"DIR"`
	Listen        string        `help:"Address for the other nodes, TCP and UDP." placeholder:"HOST:PORT" default:"0.0.0.0:7400"`
	Advertise     string        `help:"Address by which the other nodes reach this one. Default: --listen, or this host's address." placeholder:"HOST:PORT"`
	HTTP          string        `name:"http" help:"Address for probes, metrics and the other commands." placeholder:"HOST:PORT" default:"127.0.0.1:7480"`
	NATS          string        `name:"nats" help:"Ship through this NATS server instead of the embedded one." placeholder:"URL"`
	Token         string        `help:"The cluster's token. Default: the one in the data dir, or, starting a cluster, a new one." placeholder:"TOKEN"`
	TokenFile     string        `help:"Read the cluster's token from this file." placeholder:"FILE"`
	Nonvoter      bool          `help:"Be a read replica: never vote, never be primary."`
	Timing        string        `help:"Lease and election times: ${enum}." enum:"lan,wan" default:"lan"`
	LogBytes      int64         `help:"Bytes that the log of transactions may take on disk. A node that was away for longer is repaired by comparing pages." placeholder:"N" default:"1073741824"`
	AuditInterval time.Duration `help:"How long a round takes in which every page is read from disk and compared with its checksum; 0: never." default:"24h"`
	Exec          string        `help:"Run this shell command under the node: it is stopped with the node, and when it ends by itself, so does the node, with its exit status." placeholder:"CMD"`
	ExecOn        string        `name:"exec-on" help:"When the command runs: as long as the node, or while it is primary with its databases open: ${enum}." enum:"always,primary" default:"always"`
	FileMode      fileMode      `help:"Permission bits of copies, their -wal and -shm. Readers under another user must be able to write the -shm." placeholder:"MODE" default:"0644"`
	FileGroup     string        `help:"Group of copies, name or number." placeholder:"GROUP"`
}

// config makes a node's configuration of the flags.
func (f *nodeFlags) config(a *app) (node.Config, error) {
	token, err := tokenOf(f.Token, f.TokenFile)
	if err != nil {
		return node.Config{}, err
	}
	cfg := node.Config{
		Name: f.Name, DataDir: f.DataDir, DBDir: f.DBDir,
		Listen: f.Listen, Advertise: f.Advertise, HTTP: f.HTTP,
		NATS: f.NATS, Token: token, Nonvoter: f.Nonvoter, Timing: f.Timing, LogBytes: f.LogBytes,
		FileMode: os.FileMode(f.FileMode), FileGroup: f.FileGroup,
		Exec: f.Exec, ExecOn: f.ExecOn,
		Guard:  guardCommand(f.DataDir, a.level),
		Logger: a.logger(), Version: version(),
	}
	if cfg.AuditInterval = f.AuditInterval; cfg.AuditInterval <= 0 {
		cfg.AuditInterval = -1 // zero means the default there
	}
	for _, s := range f.DB {
		db, err := node.ParseDatabase(s)
		if err != nil {
			return node.Config{}, usageError{err}
		}
		cfg.Databases = append(cfg.Databases, db)
	}
	return cfg, nil
}

// tokenOf returns the token given as such or in a file, or none.
func tokenOf(token, file string) (string, error) {
	if token != "" && file != "" {
		return "", usagef("--token and --token-file are both given: give one of them")
	}
	if file == "" {
		return token, nil
	}
	return api.ReadToken(file)
}

// run runs a node until it is told to stop.
func (a *app) run(cfg node.Config, warnings []string) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	for _, w := range warnings {
		cfg.Logger.Warn(w)
	}
	if err := a.runNode(a.ctx, cfg); err != nil {
		return fmt.Errorf("run node %s: %w", cfg.Name, err)
	}
	cfg.Logger.Info("stopped", slog.String("node", cfg.Name))
	return nil
}

// fileMode is a file's permission bits, written in octal.
type fileMode os.FileMode

// UnmarshalText reads "0660" or "660".
func (m *fileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n > 0o777 {
		return errors.New("want permission bits in octal, such as 0660")
	}
	*m = fileMode(n)
	return nil
}
