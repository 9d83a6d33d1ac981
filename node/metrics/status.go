package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsnode/lsnode/node/api"
)

var (
	roles = [...]api.Role{api.RolePrimary, api.RoleFollower, api.RoleCandidate, api.RoleFenced}
	// lived are the roles in which a node lives for a while; a candidacy is a step.
	lived  = [...]api.Role{api.RolePrimary, api.RoleFollower, api.RoleFenced}
	states = [...]api.State{
		api.StatePrimary, api.StateStreaming, api.StateCatchingUp, api.StateSeeding,
		api.StateRepairing, api.StateFenced, api.StateRefused,
	}
)

// statusCollector makes gauges of a node's status at each scrape.
type statusCollector struct {
	version string
	status  func() api.Status

	info, role, epoch, hasPrimary, nodes                 *prometheus.Desc
	state, dbEpoch, txid, synced, lag, lagTxids, walSize *prometheus.Desc
	quarantined, damaged, guard                          *prometheus.Desc
}

func newStatusCollector(version string, status func() api.Status) *statusCollector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("lsnode_"+name, help, labels, nil)
	}
	return &statusCollector{
		version: version, status: status,
		info:        d("info", "Always 1; its labels say which node this is.", "cluster", "node", "id", "version"),
		role:        d("role", "1 for the role that this node has, 0 for the others.", "role"),
		epoch:       d("epoch", "The highest epoch that this node knows of."),
		hasPrimary:  d("has_primary", "1 when this node knows a primary."),
		nodes:       d("nodes", "Members of the cluster as this node sees them.", "voter", "alive"),
		guard:       d("guard_alive", "1 while this node's guard is alive, 0 when it has none."),
		state:       d("database_state", "1 for the state that the database has here, 0 for the others.", "database", "state"),
		dbEpoch:     d("database_epoch", "Epoch of the database's position here.", "database"),
		txid:        d("database_txid", "TXID of the database's position here.", "database"),
		synced:      d("database_synced_txid", "TXID known to be durable on a majority.", "database"),
		lag:         d("lag_seconds", "Time since this node last knew itself to be at the primary's position.", "database"),
		lagTxids:    d("lag_transactions", "Commits of the primary that are known here and not applied.", "database"),
		walSize:     d("wal_bytes", "Size of the database's WAL.", "database"),
		damaged:     d("unrepaired_pages", "Pages of this copy found damaged and not repaired yet.", "database"),
		quarantined: d("quarantine_commits", "Commits of the database in quarantine on this node.", "database"),
	}
}

// Describe implements [prometheus.Collector].
func (c *statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.info, c.role, c.epoch, c.hasPrimary, c.guard, c.nodes, c.state, c.dbEpoch, c.txid, c.synced, c.lag, c.lagTxids, c.walSize, c.quarantined, c.damaged,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.status()
	set := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	set(c.info, 1, st.Cluster, st.Node, st.ID, c.version)
	for _, role := range roles {
		set(c.role, truth(st.Role == role), string(role))
	}
	set(c.epoch, float64(st.Epoch))
	set(c.hasPrimary, truth(st.Primary != ""))
	set(c.guard, truth(st.Guard.State == api.GuardAlive))
	var count [2][2]int // by voter, by alive
	for _, n := range st.Nodes {
		count[int(truth(n.Voter))][int(truth(n.Alive))]++
	}
	for voter := range count {
		for alive := range count[voter] {
			set(c.nodes, float64(count[voter][alive]), strconv.FormatBool(voter == 1), strconv.FormatBool(alive == 1))
		}
	}
	seen := map[string]bool{} // two rows of one name would void the whole scrape
	for _, db := range st.Databases {
		if !seen[db.Name] {
			seen[db.Name] = true
			c.collectDatabase(db, set)
		}
	}
}

func (c *statusCollector) collectDatabase(db api.Database, set func(*prometheus.Desc, float64, ...string)) {
	for _, state := range states {
		set(c.state, truth(db.State == state), db.Name, string(state))
	}
	set(c.dbEpoch, float64(db.Epoch), db.Name)
	if n, err := strconv.ParseUint(db.TXID, 16, 64); err == nil {
		set(c.txid, float64(n), db.Name)
	}
	if n, err := strconv.ParseUint(db.SyncedTXID, 16, 64); err == nil {
		set(c.synced, float64(n), db.Name)
	}
	set(c.lag, db.LagMS/1000, db.Name)
	set(c.lagTxids, float64(db.LagTXIDs), db.Name)
	set(c.walSize, float64(db.WALBytes), db.Name)
	set(c.damaged, float64(db.DamagedPages), db.Name)
	set(c.quarantined, float64(db.Quarantined), db.Name)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
