package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

type verifyCmd struct {
	localFlags
	DB      string        `arg:"" name:"db" optional:"" help:"Name of the database. Default: all."`
	Deep    bool          `help:"Reread every page from disk on every node, and repair what is damaged."`
	JSON    bool          `name:"json" help:"Print JSON, for programs."`
	Timeout time.Duration `help:"How long one database may take." default:"30m"`
}

// errDiffers says that some node has not what the primary has, or had not.
var errDiffers = errors.New("not all nodes have what the primary has, undamaged")

// Run implements "lsnode verify". Damage that was found is an error also when it
// is repaired by now.
func (c *verifyCmd) Run(a *app) error {
	client, err := c.changer()
	if err != nil {
		return err
	}
	names := []string{c.DB}
	if c.DB == "" {
		if names, err = c.databases(a, client); err != nil {
			return err
		}
	}
	all := []api.Verified{}
	var errs []error
	for _, name := range names {
		err := a.ask(&c.localFlags, c.Timeout, func(ctx context.Context) error {
			v, err := client.Verify(ctx, name, c.Deep, c.Timeout)
			if err == nil {
				all = append(all, v)
			}
			return err
		})
		errs = append(errs, err)
	}
	if c.JSON {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(all)
	} else {
		err = writeVerified(a.out, all)
	}
	errs = append(errs, err)
	if slices.ContainsFunc(all, func(v api.Verified) bool { return !v.Equal() }) {
		errs = append(errs, errDiffers)
	}
	return errors.Join(errs...)
}

// databases returns the names of all databases of the node.
func (c *verifyCmd) databases(a *app, client *api.Client) (names []string, err error) {
	err = a.ask(&c.localFlags, 5*time.Second, func(ctx context.Context) error {
		st, err := client.Status(ctx)
		for _, db := range st.Databases {
			names = append(names, db.Name)
		}
		return err
	})
	return names, err
}

// writeVerified writes a row for each database and node.
func writeVerified(w io.Writer, all []api.Verified) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DATABASE\tNODE\tRESULT\tTXID\tCHECKSUM\tPAGES READ\tDAMAGED")
	for _, v := range all {
		for _, n := range v.Nodes {
			row(table, v.Database, n.Node, resultOf(n), decimal(n.TXID), n.Checksum, strconv.FormatUint(uint64(n.PagesRead), 10), strconv.Itoa(n.Damaged))
		}
	}
	err := table.Flush()
	for _, v := range all {
		for _, n := range v.Nodes {
			for _, no := range slices.Sorted(maps.Keys(n.Pages)) {
				if err == nil {
					_, err = fmt.Fprintf(w, "%s on %s: page %d: %s\n", printable(v.Database), printable(n.Node), no, printable(n.Pages[no]))
				}
			}
		}
	}
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// resultOf says in short what was found on a node.
func resultOf(n api.VerifiedNode) string {
	switch {
	case n.Equal:
		return "equal"
	case n.Error != "":
		return "unknown: " + n.Error
	case n.Damaged > 0 && n.Repaired:
		return "damaged, repaired"
	case n.Damaged > 0:
		return "DAMAGED"
	}
	return "DIFFERS"
}
