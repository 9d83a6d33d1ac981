package guard

import (
	"slices"
	"strings"
	"time"

	"github.com/lsnode/lsnode/cluster"
)

// Database is one that applications may write to.
type Database struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// table is what changes seldom.
type table struct {
	Node   string         `json:"node"` // ID
	Margin time.Duration  `json:"margin"`
	Lease  time.Duration  `json:"lease"`
	Voters []cluster.Peer `json:"voters"` // but the node
	// Databases are those whose fence is, or may be, lifted.
	Databases []Database `json:"databases"`
}

func (t table) has(name string) bool {
	return slices.ContainsFunc(t.Databases, func(d Database) bool { return d.Name == name })
}

// with returns the table's databases with one more, or another path for it.
func (t table) with(db Database) []Database {
	all := append(t.without(db.Name), db)
	slices.SortFunc(all, func(a, b Database) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (t table) without(name string) []Database {
	return slices.DeleteFunc(slices.Clone(t.Databases), func(d Database) bool { return d.Name == name })
}
