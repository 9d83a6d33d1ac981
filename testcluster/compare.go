package testcluster

import (
	"context"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/testcluster/app"
	"github.com/lsnode/lsnode/testcluster/oracle"
)

// compareLimit is how long copies may differ from what their nodes say: a node
// says where it stands, which for a moment may be behind the file's last commit.
const compareLimit = 10 * time.Second

// Compare waits until all running nodes say that they are equal, then reads
// every copy in a process of its own and compares raw pages and content. It
// returns what they all hold. Nobody may be writing.
func (c *Cluster) Compare(ctx context.Context) (app.Digest, error) {
	for limit := time.Now().Add(compareLimit); ; {
		said, err := c.WaitEqual(ctx, DatabaseName)
		if err != nil {
			return app.Digest{}, err
		}
		d, err := c.compare(ctx, said)
		if err == nil || ctx.Err() != nil || time.Now().After(limit) {
			return d, err
		}
	}
}

func (c *Cluster) compare(ctx context.Context, said DatabaseStatus) (app.Digest, error) {
	var first app.Digest
	for i, n := range c.running() {
		d, err := c.Apps.Digest(ctx, n.DB(DatabaseName))
		if err != nil {
			return d, fmt.Errorf("read copy of node %s: %w", n.Name, err)
		}
		if d.Integrity != "ok" {
			return d, fmt.Errorf("copy of node %s: integrity_check: %s", n.Name, d.Integrity)
		}
		if d.Checksum != said.Checksum {
			return d, fmt.Errorf("node %s says its checksum is %s; its pages have %s", n.Name, said.Checksum, d.Checksum)
		}
		if i == 0 {
			first = d
		}
		if d.Content != first.Content {
			return d, fmt.Errorf("copy of node %s holds other rows: %v, not %v", n.Name, d.Rows, first.Rows)
		}
	}
	return first, nil
}

func (c *Cluster) running() (nodes []*Node) {
	for _, n := range c.Nodes {
		if n.Running() {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Verdict is what became of all commits that applications saw succeed.
type Verdict struct {
	Committed   int // that the applications saw succeed
	Doubtful    int // of which they never learned
	Quarantined int // not in the cluster, and found in a node's quarantine
}

// Verify compares every running node's copy with the record, row by row. What
// is missing must be in the quarantine of some node, each single commit.
// Nobody may be writing.
func (c *Cluster) Verify(ctx context.Context, record *oracle.Record) (Verdict, error) {
	v := Verdict{Committed: record.Committed(), Doubtful: record.Doubtful()}
	var copies []string
	for _, n := range c.Nodes {
		paths, err := oracle.Quarantined(n.DataDir)
		if err != nil {
			return v, err
		}
		copies = append(copies, paths...)
	}
	for i, n := range c.running() {
		found, err := record.Check(ctx, n.DB(DatabaseName))
		if err != nil {
			return v, fmt.Errorf("check node %s: %w", n.Name, err)
		}
		if len(found.Missing) > 0 {
			lost, err := record.FindIn(ctx, found.Missing, copies)
			if err != nil {
				return v, fmt.Errorf("look into quarantine: %w", err)
			}
			if len(lost) > 0 {
				return v, fmt.Errorf("check node %s: %d commits are neither there nor in the %d copies in quarantine, %v …",
					n.Name, len(lost), len(copies), lost[:min(5, len(lost))])
			}
		}
		if i > 0 && len(found.Missing) != v.Quarantined {
			return v, fmt.Errorf("check node %s: it lacks %d commits, the first one lacks %d", n.Name, len(found.Missing), v.Quarantined)
		}
		v.Quarantined = len(found.Missing)
		found.Missing = nil
		if err := found.Err(); err != nil {
			return v, fmt.Errorf("check node %s: %w", n.Name, err)
		}
	}
	return v, nil
}

// Settle does what the end of most runs is: it waits until the cluster is
// whole, compares all copies, and looks for every recorded commit.
func (c *Cluster) Settle(ctx context.Context, limit time.Duration, records ...string) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := c.WaitSettled(ctx); err != nil {
		return Verdict{}, err
	}
	if _, err := c.Compare(ctx); err != nil {
		return Verdict{}, err
	}
	record, err := oracle.Read(records...)
	if err != nil {
		return Verdict{}, err
	}
	return c.Verify(ctx, record)
}
