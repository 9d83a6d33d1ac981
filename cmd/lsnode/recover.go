package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lsnode/lsnode/node"
)

type recoverCmd struct {
	DataDir string `help:"Data dir of the node that is to go on alone. The node must not be running." placeholder:"DIR"`
	Yes     bool   `help:"Do it without asking."`
}

// Run implements "lsnode recover".
func (c *recoverCmd) Run(a *app) error {
	if c.DataDir == "" {
		return usagef("which node is to go on alone: give its --data-dir")
	}
	var alone node.Surveyed
	err := node.Recover(a.ctx, c.DataDir, a.logger(), func(s node.Survey) error {
		alone = s.Nodes[0]
		if err := showSurvey(a, s); err != nil || c.Yes {
			return err
		}
		return a.confirm(fmt.Sprintf("Let %s go on alone?", alone.Name))
	})
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	fmt.Fprintf(a.err, "%s is the cluster's only member. Start it as before (lsnode run); then let new nodes join.\n"+
		"Members of before that come back join anew by themselves; what they have more will be in their quarantine.\n", alone.Name)
	return nil
}

// showSurvey prints what each member has, and what that means.
func showSurvey(a *app, s node.Survey) error {
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tADDRESS\tVOTER\tDATABASE\tEPOCH\tTXID\tMADE")
	lost := []string{}
	for _, n := range s.Nodes {
		if n.Err != nil {
			lost = append(lost, n.Name)
			row(table, n.Name, n.Address, yesNo(n.Voter), "does not answer", "", "", "")
			continue
		}
		for _, db := range s.Databases {
			has, ok := n.Databases[db]
			if !ok {
				row(table, n.Name, n.Address, yesNo(n.Voter), db, "", "nothing", "")
				continue
			}
			row(table, n.Name, n.Address, yesNo(n.Voter), db, fmt.Sprint(has.Epoch), has.TXID.String(), has.At.Local().Format(time.DateTime))
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	if len(lost) > 0 {
		fmt.Fprintf(a.err, "What %s had more than %s is lost, also if a sync was answered for it: every commit after those shown.\n",
			strings.Join(lost, " and "), s.Nodes[0].Name)
	}
	if ahead := s.Ahead(); len(ahead) > 0 {
		fmt.Fprintf(a.err, "%s has more than %s: recover there instead, and less is lost.\n", strings.Join(ahead, " and "), s.Nodes[0].Name)
	}
	fmt.Fprintf(a.err, "Be sure that the others are not at work somewhere out of this host's sight: two primaries would go different ways.\n")
	return nil
}
