package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// view shows where every node stands, from its creation until stop.
type view struct {
	story  *story
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func newView(s *story) *view {
	ctx, cancel := context.WithCancel(context.Background())
	v := &view{story: s, cancel: cancel}
	v.done.Go(func() { v.run(ctx) })
	return v
}

// stop removes the table and returns when nothing draws any more. It may be
// called more than once.
func (v *view) stop() {
	v.cancel()
	v.done.Wait()
}

func (v *view) run(ctx context.Context) {
	every := 2 * time.Second
	if v.story.screen.terminal {
		every = 200 * time.Millisecond
		defer v.story.screen.draw(nil)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			v.story.screen.draw(v.table(ctx))
		}
	}
}

// table is one line for each node, under a title on a terminal.
func (v *view) table(ctx context.Context) []string {
	var lines []string
	const format = "         %-4s  %-10s %6s %8s %10s %12s %12s %14s"
	if v.story.screen.terminal {
		lines = append(lines, "", fmt.Sprintf(format, "node", "role", "epoch", "commit", "lag", "behind", "bank wrote", "reader checked"))
	}
	var plain []string
	for _, n := range v.story.Nodes {
		row := v.row(ctx, n)
		lines = append(lines, strings.TrimRight(fmt.Sprintf(format, row...), " "))
		plain = append(plain, fmt.Sprintf("%s %s %s lag %s", row[0], row[1], row[3], row[4]))
	}
	if !v.story.screen.terminal {
		return []string{"         " + strings.Join(plain, " | ")}
	}
	return lines
}

func (v *view) row(ctx context.Context, n *testcluster.Node) []any {
	if !n.Running() {
		return []any{n.Name, "dead", "", "-", "-", "", "", ""}
	}
	s, err := n.Status(ctx)
	if err != nil {
		return []any{n.Name, "silent", "", "-", "-", "", "", ""}
	}
	d := s.Database(testcluster.DatabaseName)
	lag, behind := fmt.Sprintf("%.2f ms", d.LagMS), fmt.Sprint(d.LagTXIDs)
	if s.Role == "primary" {
		lag, behind = "-", ""
	}
	return []any{n.Name, s.Role, fmt.Sprint(s.Epoch), number(d.TXID), lag, behind, v.count(v.story.writers, n), v.count(v.story.readers, n)}
}

func (v *view) count(apps map[string]*app.Child, n *testcluster.Node) string {
	v.story.screen.mu.Lock()
	c := apps[n.Name]
	v.story.screen.mu.Unlock()
	if c == nil {
		return "-"
	}
	return fmt.Sprint(c.Last().Count)
}

// number is a TXID for people.
func number(txid string) string {
	var n uint64
	if _, err := fmt.Sscanf(txid, "%x", &n); err != nil {
		return "-"
	}
	return fmt.Sprint(n)
}
