package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// Database is one SQLite file to replicate.
type Database struct {
	Name string // known in the whole cluster by it; default the file name without extension
	Path string // of the file; on a node that joins, where the copy is to be; required
}

// When an application runs that lives under its node.
const (
	ExecAlways  = "always"
	ExecPrimary = "primary"
)

// Config is all that a node is told. [Run] takes it as it is, fills in the
// defaults and validates it once.
type Config struct {
	Name      string      // label for people, unique among live nodes; default the host's name
	DataDir   string      // this node's state: ID, token, Raft, log; made if absent; required
	Databases []Database  // files to replicate; default none
	DBDir     string      // directory watched for databases, and home of new copies; default none watched, copies in DataDir/db
	Listen    string      // node-to-node, HOST:PORT, TCP and UDP; default 0.0.0.0:7400
	Advertise string      // HOST:PORT by which other nodes reach Listen; default Listen, or this host's address if that is unspecified
	HTTP      string      // HOST:PORT of the endpoints for people and probes; default 127.0.0.1:7480
	Archive   string      // URL of the archive; default none
	NATS      string      // URL of an external NATS server; default embedded
	Token     string      // the cluster's secret; default the one in DataDir, or a new one for a new cluster
	Nonvoter  bool        // stay a read replica that is never primary; default false
	Peers     []string    // HOST:PORT of members to join through; default none: a new cluster of one, or resume
	Timing    string      // lease and election times fit for "lan" or "wan"; default lan
	FileMode  os.FileMode // permission bits of copies, their -wal and -shm; default 0644
	FileGroup string      // group of copies, name or number; default the process's
	LogBytes  int64       // bytes that the log of transactions may take on disk; default 1 GiB
	Replace   bool        // joining, put aside an existing file that is not this cluster's copy; default false
	Exec      string      // shell command of an application to run; default none
	ExecOn    string      // when it runs: "always" the node does, or while it is "primary" with its databases open; default always
	Guard     []string    // program and arguments of the guard, which calls guard.Watch; default none: this node is not guarded
	// AuditInterval is how long a round takes in which every page of all databases
	// is read from disk and compared with its checksum; negative: never; default 24h.
	AuditInterval time.Duration
	Logger        *slog.Logger // default slog.Default()
	Version       string       // shown to people and other nodes; default "devel"
}

// withDefaults returns the configuration with each field that is zero set to
// its default, and paths made absolute.
func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("take the host's name as the node's: %w; give --name", err)
		}
		c.Name = host
	}
	setDefault(&c.Listen, "0.0.0.0:7400")
	setDefault(&c.HTTP, "127.0.0.1:7480")
	setDefault(&c.Timing, "lan")
	setDefault(&c.ExecOn, ExecAlways)
	setDefault(&c.Version, "devel")
	if c.AuditInterval == 0 {
		c.AuditInterval = 24 * time.Hour
	}
	if c.LogBytes == 0 {
		c.LogBytes = 1 << 30
	}
	if c.FileMode == 0 {
		c.FileMode = 0o644
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	var err error
	for _, p := range []*string{&c.DataDir, &c.DBDir} {
		if *p != "" && err == nil {
			*p, err = filepath.Abs(*p)
		}
	}
	databases := make([]Database, len(c.Databases))
	for i, db := range c.Databases {
		if db.Name == "" {
			db.Name = DatabaseName(db.Path)
		}
		if db.Path != "" && err == nil {
			db.Path, err = filepath.Abs(db.Path)
		}
		databases[i] = db
	}
	c.Databases = databases
	if err != nil {
		return c, fmt.Errorf("make paths absolute: %w", err)
	}
	return c, nil
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// ErrConfig is wrapped by everything that [Config.Validate] returns: the
// configuration can't work on any machine at any time.
var ErrConfig = errors.New("configuration")

var nodeName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Validate says what is wrong with the configuration, all at once, without
// looking at any file. It wraps [ErrConfig].
func (c Config) Validate() error {
	c, err := c.withDefaults()
	errs := []error{err}
	if !nodeName.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("name %q: want 1 to 64 letters, digits, dots, underscores or hyphens", c.Name))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New("data dir is missing: name a directory of this node's own with --data-dir"))
	}
	errs = append(errs, c.validateAddresses()...)
	errs = append(errs, c.validateDatabases()...)
	if c.Timing != "lan" && c.Timing != "wan" {
		errs = append(errs, fmt.Errorf("timing %q: want lan or wan", c.Timing))
	}
	if c.ExecOn != ExecAlways && c.ExecOn != ExecPrimary {
		errs = append(errs, fmt.Errorf("exec on %q: want %s or %s", c.ExecOn, ExecAlways, ExecPrimary))
	}
	if c.LogBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("log bytes %d: want at least 1048576", c.LogBytes))
	}
	if c.FileMode&^0o666 != 0 || c.FileMode&0o600 != 0o600 {
		errs = append(errs, fmt.Errorf("file mode %#o: want permission bits such as 0660: the owner reads and writes, nobody executes", uint32(c.FileMode)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

func (c Config) validateAddresses() (errs []error) {
	check := func(what, address string, dialled bool) {
		if err := checkAddress(address, dialled); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", what, address, err))
		}
	}
	check("listen address", c.Listen, false)
	check("http address", c.HTTP, false)
	if c.Advertise != "" {
		check("advertised address", c.Advertise, true)
	}
	for _, peer := range c.Peers {
		check("peer", peer, true)
	}
	if c.NATS != "" {
		u, err := url.Parse(c.NATS)
		if err != nil || u.Host == "" || (u.Scheme != "nats" && u.Scheme != "tls") {
			errs = append(errs, fmt.Errorf("nats %q: want nats://HOST:PORT or tls://HOST:PORT", c.NATS))
		}
	}
	return errs
}

// checkAddress refuses what is not HOST:PORT; what others dial needs a host and
// a port that say where.
func checkAddress(address string, dialled bool) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("want HOST:PORT")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("port %q: want a number up to 65535", port)
	}
	if !dialled {
		return nil
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return errors.New("want a host that other nodes can reach")
	}
	if n == 0 {
		return errors.New("want a port other than 0")
	}
	return nil
}

func (c Config) validateDatabases() (errs []error) {
	names, paths := map[string]string{}, map[string]string{}
	for _, db := range c.Databases {
		if db.Path == "" {
			errs = append(errs, fmt.Errorf("database %q: path is missing", db.Name))
			continue
		}
		if !walstream.ValidName(db.Name) {
			errs = append(errs, fmt.Errorf("database %s: name %q: want 1 to 64 letters, digits, dots, underscores or hyphens; name it with NAME=PATH", db.Path, db.Name))
			continue
		}
		if other, ok := names[db.Name]; ok {
			errs = append(errs, fmt.Errorf("databases %s and %s have one name, %q: name one of them otherwise with NAME=PATH", other, db.Path, db.Name))
		}
		if other, ok := paths[db.Path]; ok && other != db.Name {
			errs = append(errs, fmt.Errorf("database %s has two names, %q and %q: give it once", db.Path, other, db.Name))
		}
		names[db.Name], paths[db.Path] = db.Path, db.Name
	}
	return errs
}

// CopyPath is where a copy of a database goes that this node was given no path
// for.
func (c Config) CopyPath(name string) string {
	if c.DBDir != "" {
		return filepath.Join(c.DBDir, name+".db")
	}
	return filepath.Join(c.DataDir, "db", name+".db")
}

// DatabaseName is the name that a database has by default: its file name
// without extension.
func DatabaseName(path string) string {
	base := filepath.Base(path)
	if name := strings.TrimSuffix(base, filepath.Ext(base)); name != "" {
		return name
	}
	return base
}

// ParseDatabase reads "[NAME=]PATH". What stands before the first "=" is a name
// only if it can be one, so that a path may contain the sign.
func ParseDatabase(s string) (Database, error) {
	if name, path, ok := strings.Cut(s, "="); ok && walstream.ValidName(name) {
		if path == "" {
			return Database{}, fmt.Errorf("parse database %q: path is missing after %q", s, name+"=")
		}
		return Database{Name: name, Path: path}, nil
	}
	if s == "" {
		return Database{}, errors.New("parse database: path is missing")
	}
	return Database{Name: DatabaseName(s), Path: s}, nil
}
