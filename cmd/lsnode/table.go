package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/lsnode/lsnode/node/api"
)

// writeStatus writes a status for people. Nothing of it is for programs: they
// take the JSON.
func writeStatus(w io.Writer, st api.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s   epoch %d   primary %s   this node %s (%s)\n\n",
		st.Cluster, st.Epoch, cmp.Or(printable(st.Primary), "none"), printable(st.Node), st.Role)

	nodes := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(nodes, "NODE\tROLE\tVOTER\tALIVE\tADDRESS\tHTTP")
	for _, n := range st.Nodes {
		row(nodes, n.Name, cmp.Or(string(n.Role), "-"), yesNo(n.Voter), yesNo(n.Alive), n.Address, cmp.Or(n.HTTP, "-"))
	}
	_ = nodes.Flush() // into memory

	b.WriteByte('\n')
	if len(st.Databases) == 0 {
		b.WriteString("no databases\n")
	} else {
		writeDatabases(&b, st.Databases)
	}
	if st.Guard.State == api.GuardAbsent {
		fmt.Fprintf(&b, "\nthis node has no guard at present: %s\n", cmp.Or(printable(st.Guard.Error), "it shows no life"))
	}
	if st.Archive.State != api.ArchiveOff && st.Archive.State != "" {
		fmt.Fprintf(&b, "\narchive %s: %s\n", printable(st.Archive.URL), st.Archive.State)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

func writeDatabases(b *strings.Builder, databases []api.Database) {
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DATABASE\tSTATE\tEPOCH\tTXID\tSYNCED\tLAG\tBEHIND\tWAL\tPATH")
	for _, db := range databases {
		row(table, db.Name, string(db.State), strconv.FormatUint(db.Epoch, 10), decimal(db.TXID), decimal(db.SyncedTXID),
			lag(db), strconv.FormatUint(db.LagTXIDs, 10), size(db.WALBytes), db.Path)
	}
	_ = table.Flush() // into memory
	for _, db := range databases {
		if db.Error != "" {
			fmt.Fprintf(b, "\n%s: %s\n", printable(db.Name), printable(db.Error))
		}
		if db.Quarantined > 0 {
			fmt.Fprintf(b, "\n%s: %d commits in quarantine: this node had them and the cluster has not\n", printable(db.Name), db.Quarantined)
		}
	}
}

// row writes cells that others have chosen, without what would move a
// terminal's cursor or start another cell.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// decimal writes a TXID as the number that it is.
func decimal(txid string) string {
	n, err := strconv.ParseUint(txid, 16, 64)
	if err != nil {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

func lag(db api.Database) string {
	switch {
	case db.State == api.StatePrimary, db.State == api.StateRefused:
		return "-"
	case db.LagMS < 10:
		return fmt.Sprintf("%.1f ms", db.LagMS)
	case db.LagMS < 1000:
		return fmt.Sprintf("%.0f ms", db.LagMS)
	default:
		d := time.Duration(db.LagMS * float64(time.Millisecond))
		return d.Round(100 * time.Millisecond).String()
	}
}

func size(bytes int64) string {
	switch n := float64(bytes); {
	case bytes < 10_000:
		return fmt.Sprintf("%d B", bytes)
	case n < 1e6:
		return fmt.Sprintf("%.0f kB", n/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", n/1e6)
	default:
		return fmt.Sprintf("%.1f GB", n/1e9)
	}
}
