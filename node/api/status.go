package api

// Role says what a node is in its cluster.
type Role string

// The roles. RolePrimary means that applications may write on the node at this
// instant: it holds the lease and its databases are open for writing.
const (
	RolePrimary   Role = "primary"
	RoleFollower  Role = "follower"
	RoleCandidate Role = "candidate" // has been elected and is not open for writing yet
	RoleFenced    Role = "fenced"    // knows no primary; its databases are read-only
)

// State says what a node does with one database.
type State string

// The states of a database on a node.
const (
	StatePrimary    State = "primary"     // captured here, open for writing
	StateStreaming  State = "streaming"   // applies what the primary ships
	StateCatchingUp State = "catching-up" // pulls what it lacks from a log
	StateSeeding    State = "seeding"     // receives its first copy
	StateRepairing  State = "repairing"   // receives the pages that differ
	StateFenced     State = "fenced"      // read-only, and no primary is known
	StateRefused    State = "refused"     // not replicated; Error says why
)

// Served tells whether applications can rely on the database here: written on
// the primary, or kept up to date on a follower.
func (s State) Served() bool { return s == StatePrimary || s == StateStreaming }

// Status is what one node knows at one instant: the answer of GET /v1/status
// and of "lsnode status --json". The field names are a contract.
type Status struct {
	Cluster   string     `json:"cluster"` // the cluster's ID
	Node      string     `json:"node"`    // this node's name
	ID        string     `json:"id"`      // this node's ID, made with its data dir
	Role      Role       `json:"role"`
	Epoch     uint64     `json:"epoch"`   // the highest one this node knows of
	Primary   string     `json:"primary"` // name of the primary; empty: none known
	Nodes     []Node     `json:"nodes"`
	Databases []Database `json:"databases"`
	Archive   Archive    `json:"archive"`
	Guard     Guard      `json:"guard"`
}

// Node is one member of the cluster as the answering node sees it.
type Node struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Address string `json:"address"` // node-to-node, HOST:PORT
	HTTP    string `json:"http"`    // where its endpoints are, HOST:PORT
	Role    Role   `json:"role"`
	Voter   bool   `json:"voter"`
	Alive   bool   `json:"alive"`
}

// Database is one database on the answering node.
type Database struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Epoch    uint64 `json:"epoch"`    // of its position
	TXID     string `json:"txid"`     // of its position, 16 hex digits
	Checksum string `json:"checksum"` // of the whole database at TXID, 16 hex digits
	Bookmark string `json:"bookmark"` // its position as opaque text
	State    State  `json:"state"`
	Error    string `json:"error"` // why it is not served; empty: no error
	// LagMS is the time in milliseconds since this node last knew itself to be
	// at the primary's position. It needs no clock in common. 0 on the primary.
	LagMS float64 `json:"lag_ms"`
	// LagTXIDs is how many commits of the primary are known here and not applied.
	LagTXIDs   uint64 `json:"lag_txids"`
	SyncedTXID string `json:"synced_txid"` // durable on a majority; empty: not known here
	WALBytes   int64  `json:"wal_bytes"`
	// Quarantined is how many commits of this database are kept in quarantine
	// on this node.
	Quarantined int `json:"quarantined"`
	// DamagedPages is how many pages here were found to be otherwise than they
	// were written, and are not repaired yet.
	DamagedPages int `json:"damaged_pages,omitempty"`
}

// GuardState says whether a node is guarded.
type GuardState string

// The states of a guard.
const (
	GuardAlive  GuardState = "alive"
	GuardAbsent GuardState = "absent" // it could not be started, or has died and is started again
	GuardOff    GuardState = "off"    // none is configured
)

// Guard is the process that closes the answering node's databases to writers if
// the node can't.
type Guard struct {
	State    GuardState `json:"state"`
	PID      int        `json:"pid"`      // 0: there is none
	Restarts int        `json:"restarts"` // times that it has died and was started again
	Error    string     `json:"error"`    // why it is absent
}

// ArchiveState says how the archive does.
type ArchiveState string

// The states of an archive.
const (
	ArchiveOK      ArchiveState = "ok"
	ArchiveLagging ArchiveState = "lagging"
	ArchiveFailing ArchiveState = "failing"
	ArchiveOff     ArchiveState = "off" // none is configured
)

// Archive is the state of the archive as the answering node knows it.
type Archive struct {
	URL       string            `json:"url"`
	State     ArchiveState      `json:"state"`
	Databases []ArchiveDatabase `json:"databases"`
}

// ArchiveDatabase is how far one database has been archived.
type ArchiveDatabase struct {
	Name  string `json:"name"`
	TXID  string `json:"txid"`
	At    string `json:"at"` // RFC 3339
	Error string `json:"error"`
}

// normalised returns the status with empty lists in place of nil ones, so that
// none is written as null, and with an archive that is off if none was set.
func (s Status) normalised() Status {
	if s.Nodes == nil {
		s.Nodes = []Node{}
	}
	if s.Databases == nil {
		s.Databases = []Database{}
	}
	if s.Archive.Databases == nil {
		s.Archive.Databases = []ArchiveDatabase{}
	}
	if s.Archive.State == "" {
		s.Archive.State = ArchiveOff
	}
	if s.Guard.State == "" {
		s.Guard.State = GuardOff
	}
	return s
}
