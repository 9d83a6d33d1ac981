package rowdiff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Options say how much is written, and what the two databases are.
type Options struct {
	Limit int  // rows written of each table; default 100
	Still bool // the database is written by nobody, as the kept copy is; default false
}

// Report is what a comparison has found, in numbers.
type Report struct {
	Schema   int     // definitions that differ
	Tables   []Table // those with rows that differ, or that could not be compared
	Compared int     // tables that were compared
}

// Table counts the rows of one table that differ.
type Table struct {
	Name    string
	Kept    int64 // rows that only the kept copy has
	Now     int64 // rows that only the database has
	Changed int64
	LeftOut int64 // of all these, how many were not written
	Err     error // why it could not be compared to its end
}

// Equal tells whether nothing differs and everything could be compared.
func (r Report) Equal() bool { return r.Schema == 0 && len(r.Tables) == 0 }

// Compare writes to out how the database at now differs from the copy at kept,
// which nobody writes. What can't be compared is said in the report, and keeps
// nothing else from being compared. Errors: a database can't be read, or out
// can't be written, or ctx ends.
func Compare(ctx context.Context, kept, now string, out Out, o Options) (report Report, err error) {
	if o.Limit == 0 {
		o.Limit = 100
	}
	c := &comparison{out: out, limit: o.Limit}
	if c.kept, err = openSide(ctx, kept, true); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, c.kept.close()) }()
	if c.now, err = openSide(ctx, now, o.Still); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, c.now.close()) }()
	err = c.run(ctx)
	return c.report, err
}

// comparison is one run of [Compare].
type comparison struct {
	kept, now *side
	out       Out
	limit     int
	report    Report
}

func (c *comparison) run(ctx context.Context) error {
	kept, err := c.kept.objects(ctx)
	if err != nil {
		return err
	}
	now, err := c.now.objects(ctx)
	if err != nil {
		return err
	}
	if err := c.schema(kept, now); err != nil {
		return err
	}
	for _, name := range tables(kept, now) {
		if virtual(kept, name) || virtual(now, name) {
			c.out.Comment("the rows of virtual table %s are compared in the tables that it has for itself", identifier(name))
			continue
		}
		if err := c.one(ctx, name, has(kept, name), has(now, name)); err != nil {
			return err
		}
	}
	return nil
}

// schema writes the definitions that differ.
func (c *comparison) schema(kept, now []object) error {
	find := func(all []object, o object) (object, bool) {
		i := slices.IndexFunc(all, func(p object) bool { return p.kind == o.kind && p.name == o.name })
		if i < 0 {
			return object{}, false
		}
		return all[i], true
	}
	for _, o := range kept {
		p, there := find(now, o)
		switch {
		case !there:
			c.report.Schema++
			c.out.Comment("only in quarantine: %s %s", o.kind, identifier(o.name))
			c.out.statement(o.sql)
		case o.sql != p.sql:
			c.report.Schema++
			c.out.Comment("%s %s is otherwise now:\n%s", o.kind, identifier(o.name), p.sql)
			c.out.Comment("in quarantine:\n%s", o.sql)
		}
	}
	for _, p := range now {
		if _, there := find(kept, p); !there {
			c.report.Schema++
			c.out.Comment("only now: %s %s\n%s", p.kind, identifier(p.name), p.sql)
		}
	}
	return c.out.err()
}

// tables returns the names of all tables of both.
func tables(kept, now []object) (names []string) {
	for _, o := range slices.Concat(kept, now) {
		if o.kind == "table" && !slices.Contains(names, o.name) {
			names = append(names, o.name)
		}
	}
	return names
}

func has(all []object, name string) bool {
	return slices.ContainsFunc(all, func(o object) bool { return o.kind == "table" && o.name == name })
}

func virtual(all []object, name string) bool {
	return slices.ContainsFunc(all, func(o object) bool {
		return o.kind == "table" && o.name == name && strings.HasPrefix(strings.ToUpper(o.sql), "CREATE VIRTUAL")
	})
}

// one compares one table.
func (c *comparison) one(ctx context.Context, name string, kept, now bool) error {
	t := &tableDiff{comparison: c, found: Table{Name: name}}
	t.found.Err = t.run(ctx, kept, now)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := c.out.err(); err != nil {
		return err
	}
	c.report.Compared++
	f := t.found
	if f.Err != nil {
		c.out.Comment("table %s could not be compared to its end: %v", identifier(name), f.Err)
	}
	if f.LeftOut > 0 {
		c.out.Comment("%d more rows of %s differ", f.LeftOut, identifier(name))
	}
	if f.Err != nil || f.Kept+f.Now+f.Changed > 0 {
		c.report.Tables = append(c.report.Tables, f)
		c.out.Comment("table %s: %d rows only in quarantine, %d only now, %d otherwise", identifier(name), f.Kept, f.Now, f.Changed)
	}
	return c.out.err()
}

var errNoKey = errors.New("nothing tells its rows apart on both sides")

func unreadable(side string, err error) error { return fmt.Errorf("read %s: %w", side, err) }
