package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// group is a cluster with the bank on every node: each tries to write all the
// time, and one is let.
type group struct {
	*testcluster.Cluster
	banks map[*testcluster.Node]*app.Child
}

func (b *bench) group(ctx context.Context, name string) (*group, error) {
	c, err := b.cluster(ctx, name, 3)
	if err != nil {
		return nil, err
	}
	g := &group{c, map[*testcluster.Node]*app.Child{}}
	for _, n := range c.Nodes {
		if err := g.start(n); err != nil {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

func (g *group) record(n *testcluster.Node) string {
	return filepath.Join(filepath.Dir(n.LogFile), "commits")
}

func (g *group) start(n *testcluster.Node) (err error) {
	g.banks[n], err = g.Apps.Start("bank", "--db", n.DB(testcluster.DatabaseName), "--reopen", "--rate", "500",
		"--worker", n.Name[1:], "--oracle", g.record(n), "--every", "5ms")
	return err
}

func (g *group) close() {
	for _, bank := range g.banks {
		if bank != nil { // it did not start
			bank.Kill()
		}
	}
	g.Close()
}

// ready waits until the cluster is whole and the primary's bank writes.
func (g *group) ready(ctx context.Context) (*testcluster.Node, error) {
	if err := g.WaitSettled(ctx); err != nil {
		return nil, err
	}
	primary, err := g.WaitPrimary(ctx)
	if err != nil {
		return nil, err
	}
	count := g.banks[primary].Last().Count
	return primary, reported(ctx, g.banks[primary], func(r app.Report) bool { return r.First != 0 && r.Count > count+100 })
}

// heir waits until another bank has committed since the given moment, and
// returns its node and the moment of that commit.
func (g *group) heir(ctx context.Context, since int64, old *testcluster.Node) (*testcluster.Node, int64, error) {
	for {
		for n, bank := range g.banks {
			if first := bank.Last().First; n != old && first > since {
				return n, first, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("wait for a commit on another node: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// verify ends the banks and looks for every commit that they saw succeed.
func (g *group) verify(ctx context.Context) (testcluster.Verdict, error) {
	var records []string
	for n, bank := range g.banks {
		if _, err := bank.Finish(); err != nil {
			return testcluster.Verdict{}, err
		}
		records = append(records, g.record(n))
	}
	return g.Settle(ctx, time.Minute, records...)
}

const oneRun = time.Minute

// failover kills the primary again and again: lsnode and the bank, while its
// guard lives and tells the others.
func (b *bench) failover(ctx context.Context) error {
	return b.kills(ctx, "failover after SIGKILL", (*testcluster.Node).Kill)
}

// crash does the same to the primary's whole host, so that the others have to
// wait for the end of its lease.
func (b *bench) crash(ctx context.Context) error {
	return b.kills(ctx, "failover after the host's death", (*testcluster.Node).Crash)
}

func (b *bench) kills(ctx context.Context, name string, kill func(*testcluster.Node)) error {
	g, err := b.group(ctx, strings.ReplaceAll(name, " ", "-"))
	if err != nil {
		return err
	}
	defer g.close()
	var took []int64
	for i := range b.runs {
		one, err := b.killOnce(ctx, g, kill)
		if err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		took = append(took, one)
		note("%s: run %d: %d ms", name, i+1, one/1e6)
	}
	v, err := g.verify(ctx)
	if err != nil {
		return err
	}
	note("%s: %d commits, %d of them in quarantine", name, v.Committed, v.Quarantined)
	s := spread(took, time.Millisecond)
	b.add(figure{Name: name, Unit: "ms", Values: s, Count: len(took), Aim: "p50 < 1500 ms"}, s["p50"] < 1500)
	return nil
}

func (b *bench) killOnce(ctx context.Context, g *group, kill func(*testcluster.Node)) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, oneRun)
	defer cancel()
	primary, err := g.ready(ctx)
	if err != nil {
		return 0, err
	}
	killed := app.Clock()
	kill(primary)
	g.banks[primary].Kill()
	_, first, err := g.heir(ctx, killed, primary)
	if err != nil {
		return 0, err
	}
	if err := g.StartNode(primary); err != nil {
		return 0, err
	}
	if _, err := primary.WaitFor(ctx, "following", testcluster.IsFollowing); err != nil {
		return 0, err
	}
	return first - killed, g.start(primary)
}

// switchover hands the primary over again and again.
func (b *bench) switchover(ctx context.Context) error {
	g, err := b.group(ctx, "switchover")
	if err != nil {
		return err
	}
	defer g.close()
	var gaps []int64
	for i := range b.runs {
		gap, err := b.switchoverOnce(ctx, g)
		if err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		gaps = append(gaps, gap)
		note("switchover: run %d: %d ms", i+1, gap/1e6)
	}
	v, err := g.verify(ctx)
	if err != nil {
		return err
	}
	if v.Quarantined != 0 {
		return fmt.Errorf("%d commits were not handed over", v.Quarantined)
	}
	s := spread(gaps, time.Millisecond)
	b.add(figure{Name: "gap in writes at a switchover", Unit: "ms", Values: s, Count: len(gaps), Aim: "p50 < 250 ms"}, s["p50"] < 250)
	return nil
}

func (b *bench) switchoverOnce(ctx context.Context, g *group) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, oneRun)
	defer cancel()
	primary, err := g.ready(ctx)
	if err != nil {
		return 0, err
	}
	begun := app.Clock()
	if _, err := primary.Run(ctx, "switchover"); err != nil {
		return 0, err
	}
	_, first, err := g.heir(ctx, begun, primary)
	if err != nil {
		return 0, err
	}
	// Refused by now, the old bank has said what its last commit was.
	old := g.banks[primary]
	refused := old.Last().Refused
	if err := reported(ctx, old, func(r app.Report) bool { return r.Refused > refused }); err != nil {
		return 0, err
	}
	return first - old.Last().Last, nil
}
