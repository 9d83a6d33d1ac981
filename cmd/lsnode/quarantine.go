package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lsnode/lsnode/node"
	"github.com/lsnode/lsnode/node/rowdiff"
	"github.com/lsnode/lsnode/walstream"
)

// quarantineCmd are the commands about commits that a node had and the cluster
// has not.
type quarantineCmd struct {
	List   quarantineListCmd   `cmd:"" help:"Show what is kept."`
	Show   quarantineShowCmd   `cmd:"" help:"Show in what tables and rows an entry differs from the database now, as SQL that would bring the entry's rows back."`
	Export quarantineExportCmd `cmd:"" help:"Write the database as that node had it to a file."`
	Drop   quarantineDropCmd   `cmd:"" help:"Remove an entry for good."`
}

// quarantineFlags say whose quarantine it is. The node need not run.
type quarantineFlags struct {
	DataDir string `help:"Data dir of the node on this host that keeps it." placeholder:"DIR"`
}

func (f *quarantineFlags) open() (node.Quarantine, error) {
	if f.DataDir == "" {
		return node.Quarantine{}, usagef("whose quarantine is meant: give --data-dir of a node on this host")
	}
	if _, err := os.Stat(f.DataDir); err != nil {
		return node.Quarantine{}, fmt.Errorf("open quarantine: %w", err)
	}
	return node.QuarantineOf(f.DataDir), nil
}

// find opens the quarantine and finds an entry in it.
func (f *quarantineFlags) find(id string) (node.Quarantine, node.Kept, error) {
	q, err := f.open()
	if err != nil {
		return q, node.Kept{}, err
	}
	entry, err := q.Find(id)
	return q, entry, err
}

type quarantineListCmd struct {
	quarantineFlags
	JSON bool `name:"json" help:"Print JSON, for programs."`
}

// Run implements "lsnode quarantine list".
func (c *quarantineListCmd) Run(a *app) error {
	q, err := c.open()
	if err != nil {
		return err
	}
	entries, err := q.List()
	if c.JSON {
		if entries == nil {
			entries = []node.Kept{}
		}
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return errors.Join(enc.Encode(entries), err)
	}
	if len(entries) == 0 {
		fmt.Fprintln(a.err, "nothing is in quarantine")
		return err
	}
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tDATABASE\tNODE\tEPOCH\tAFTER\tTO\tCOMMITS\tMADE")
	for _, e := range entries {
		row(table, e.ID, e.Database, e.Node, strconv.FormatUint(e.Epoch, 10), txidOf(e.From), txidOf(e.To), commitsOf(e), madeAt(e))
	}
	if flushed := table.Flush(); flushed != nil {
		return fmt.Errorf("write list: %w", flushed)
	}
	return err
}

// txidOf returns the TXID of a position's text as a number.
func txidOf(position string) string {
	pos, err := walstream.ParsePosition(position)
	if err != nil {
		return "-"
	}
	return strconv.FormatUint(uint64(pos.TXID), 10)
}

// commitsOf says how many commits an entry has, and how many of them were never
// captured.
func commitsOf(e node.Kept) string {
	text := strconv.FormatUint(e.Commits(), 10)
	if !e.Exact {
		text = "at least " + text
	}
	if e.Uncaptured > 0 {
		text += fmt.Sprintf(" (%d not captured)", e.Uncaptured)
	}
	return text
}

// madeAt says from when to when an entry's commits were made, as far as known.
func madeAt(e node.Kept) string {
	first, last := e.Begun, e.Ended
	if e.Written.After(last) {
		last = e.Written
	}
	switch {
	case last.IsZero():
		return "before " + stamp(e.Found)
	case first.IsZero():
		return "until " + stamp(last)
	}
	return stamp(first) + " to " + stamp(last)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

type quarantineShowCmd struct {
	quarantineFlags
	ID    string `arg:"" name:"id" help:"The entry: its ID, or the beginning of it."`
	With  string `help:"Compare with this file. Default: the database of this node." placeholder:"PATH"`
	Limit int    `help:"Rows shown of each table; what is left out is counted." default:"100" placeholder:"N"`
}

// Run implements "lsnode quarantine show". The databases are only read, and
// only by SQLite.
func (c *quarantineShowCmd) Run(a *app) (err error) {
	if c.Limit < 1 {
		return usagef("--limit %d: want at least 1", c.Limit)
	}
	q, entry, err := c.find(c.ID)
	if err != nil {
		return err
	}
	with := cmp.Or(c.With, entry.Path)
	if with == "" {
		return usagef("the entry does not say where this node has the database: give --with PATH")
	}
	out := rowdiff.NewOut(a.out)
	defer func() { err = errors.Join(err, out.Flush()) }()
	out.Comment("quarantine %s: database %s of node %s, epoch %d, after transaction %s to %s: %s commits, made %s",
		entry.ID, entry.Database, entry.Node, entry.Epoch, txidOf(entry.From), txidOf(entry.To), commitsOf(entry), madeAt(entry))
	out.Comment("compared with %s as it is now; the statements would make it what is in quarantine", with)
	report, err := rowdiff.Compare(a.ctx, q.Copy(entry), with, out, rowdiff.Options{Limit: c.Limit})
	if err != nil {
		return fmt.Errorf("compare %s with %s: %w", entry.ID, with, err)
	}
	if report.Equal() {
		out.Comment("nothing differs")
	}
	for _, t := range report.Tables {
		err = errors.Join(err, t.Err)
	}
	return err
}

type quarantineExportCmd struct {
	quarantineFlags
	ID    string `arg:"" name:"id" help:"The entry: its ID, or the beginning of it."`
	Out   string `name:"output" short:"o" help:"Where the file goes." placeholder:"FILE" required:""`
	Force bool   `help:"Replace a file that is there."`
}

// Run implements "lsnode quarantine export".
func (c *quarantineExportCmd) Run(a *app) error {
	q, entry, err := c.find(c.ID)
	if err != nil {
		return err
	}
	if err := q.Export(entry, c.Out, c.Force); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "%s is %s as %s had it, an ordinary database.\n", c.Out, entry.Database, entry.Node)
	return nil
}

type quarantineDropCmd struct {
	quarantineFlags
	ID  string `arg:"" name:"id" help:"The entry: its ID, or the beginning of it."`
	Yes bool   `help:"Don't ask."`
}

// Run implements "lsnode quarantine drop".
func (c *quarantineDropCmd) Run(a *app) error {
	q, entry, err := c.find(c.ID)
	if err != nil {
		return err
	}
	if !c.Yes {
		question := fmt.Sprintf("Remove %s, %s commits of %s that are nowhere else, for good?", entry.ID, commitsOf(entry), entry.Database)
		if err := a.confirm(question); err != nil {
			return fmt.Errorf("drop quarantine entry %s: %w", entry.ID, err)
		}
	}
	if err := q.Drop(entry); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "%s is removed.\n", entry.ID)
	return nil
}

// confirm asks a person, and returns nil if the answer is yes.
func (a *app) confirm(question string) error {
	fmt.Fprintf(a.err, "%s [yes/no] ", question)
	answer := ""
	if a.in != nil {
		scanner := bufio.NewScanner(a.in)
		scanner.Scan() // no line is no answer
		answer = strings.TrimSpace(scanner.Text())
	}
	if !strings.EqualFold(answer, "yes") {
		return errors.New("it was not confirmed: nothing was done (--yes does it without asking)")
	}
	return nil
}
