package rowdiff

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// tableDiff compares the rows of one table.
type tableDiff struct {
	*comparison
	found   Table
	key     []string // by which rows are matched, quoted as needed
	columns []string // that are compared
}

func (t *tableDiff) run(ctx context.Context, inKept, inNow bool) error {
	kept, now := table{}, table{}
	var err error
	if inKept {
		if kept, err = t.kept.table(ctx, t.found.Name); err != nil {
			return unreadable("the copy", err)
		}
	}
	if inNow {
		if now, err = t.now.table(ctx, t.found.Name); err != nil {
			return unreadable("the database", err)
		}
	}
	switch {
	case !inNow:
		return t.all(ctx, t.kept, kept, t.onlyKept)
	case !inKept:
		return t.all(ctx, t.now, now, t.onlyNow)
	}
	t.columns = common(kept.columns, now.columns)
	if len(t.columns) == 0 {
		return errNoKey
	}
	if len(t.columns) < max(len(kept.columns), len(now.columns)) {
		t.out.Comment("table %s: compared by the columns of both, %s", identifier(t.found.Name), identifiers(t.columns))
	}
	useful, err := t.chooseKey(ctx, kept, now)
	if err != nil {
		return err
	}
	if !useful {
		if t.key == nil {
			t.key = []string{now.rowid}
		}
		return t.byRowid(ctx, kept, now)
	}
	return t.byKey(ctx, kept, now)
}

// common returns the columns that both have, in the order of the first.
func common(a, b []string) (both []string) {
	for _, c := range a {
		if slices.Contains(b, c) {
			both = append(both, c)
		}
	}
	return both
}

// chooseKey sets the columns that tell rows apart on both sides. useful is false
// if that is the rowid.
func (t *tableDiff) chooseKey(ctx context.Context, kept, now table) (useful bool, err error) {
	rowids := kept.rowid != "" && now.rowid != ""
	if len(kept.primary) > 0 && slices.Equal(kept.primary, now.primary) {
		null := false
		for _, of := range []struct {
			*side
			table
		}{{t.kept, kept}, {t.now, now}} {
			if null || !rowids {
				continue
			}
			if null, err = of.hasNull(ctx, of.table); err != nil {
				return false, err
			}
		}
		if !null {
			if t.key = quoted(kept.primary); kept.alias && now.alias {
				return false, nil
			}
			return true, nil
		}
	}
	if !rowids {
		return false, errNoKey
	}
	return false, nil
}

// all takes every row of a table that only one side has.
func (t *tableDiff) all(ctx context.Context, s *side, of table, each func(key, row []any)) error {
	t.columns, t.key = of.columns, nil
	rows, err := s.conn.QueryContext(ctx, selection(of, of.columns))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := scanRow(rows, len(of.columns))
		if err != nil {
			return err
		}
		each(nil, row)
	}
	return rows.Err()
}

// byRowid walks over both tables in the order of their rowids.
func (t *tableDiff) byRowid(ctx context.Context, kept, now table) error {
	a, err := t.walk(ctx, t.kept, kept)
	if err != nil {
		return unreadable("the copy", err)
	}
	defer a.rows.Close()
	b, err := t.walk(ctx, t.now, now)
	if err != nil {
		return unreadable("the database", err)
	}
	defer b.rows.Close()
	for a.row != nil || b.row != nil {
		switch {
		case b.row == nil || a.row != nil && a.id < b.id:
			t.onlyKept([]any{a.id}, a.row)
			err = a.next()
		case a.row == nil || b.id < a.id:
			t.onlyNow([]any{b.id}, b.row)
			err = b.next()
		default:
			t.compare([]any{a.id}, a.row, b.row)
			err = errors.Join(a.next(), b.next())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// walker is one side of a walk by rowid.
type walker struct {
	rows    *sql.Rows
	columns int
	id      int64
	row     []any // nil at the end
}

func (t *tableDiff) walk(ctx context.Context, s *side, of table) (*walker, error) {
	values := []string{of.rowid}
	for _, c := range t.columns {
		values = append(values, "+"+identifier(c))
	}
	rows, err := s.conn.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s",
		strings.Join(values, ", "), identifier(of.name), of.rowid))
	if err != nil {
		return nil, err
	}
	w := &walker{rows: rows, columns: len(values)}
	return w, w.next()
}

func (w *walker) next() error {
	w.row = nil
	if !w.rows.Next() {
		return w.rows.Err()
	}
	row, err := scanRow(w.rows, w.columns)
	if err != nil {
		return err
	}
	id, ok := row[0].(int64)
	if !ok {
		return errNoKey
	}
	w.id, w.row = id, row[1:]
	return nil
}

// byKey looks each row up on the other side by its key.
func (t *tableDiff) byKey(ctx context.Context, kept, now table) error {
	err := t.lookUp(ctx, t.kept, kept, t.now, now, func(key, a, b []any) {
		if b == nil {
			t.onlyKept(key, a)
		} else {
			t.compare(key, a, b)
		}
	})
	if err != nil {
		return err
	}
	return t.lookUp(ctx, t.now, now, t.kept, kept, func(key, b, a []any) {
		if a == nil {
			t.onlyNow(key, b)
		}
	})
}

// lookUp calls each for all rows of one side with that of the other, if any.
func (t *tableDiff) lookUp(ctx context.Context, s *side, of table, other *side, there table, each func(key, row, found []any)) error {
	columns := slices.Concat(of.primary, t.columns)
	var tests []string
	for _, c := range t.key {
		tests = append(tests, c+" IS ?")
	}
	stmt, err := other.conn.PrepareContext(ctx, selection(there, t.columns)+" WHERE "+strings.Join(tests, " AND "))
	if err != nil {
		return err
	}
	defer stmt.Close()
	rows, err := s.conn.QueryContext(ctx, selection(of, columns))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := scanRow(rows, len(columns))
		if err != nil {
			return err
		}
		key := row[:len(t.key)]
		found, err := t.lookUpOne(ctx, stmt, key)
		if err != nil {
			return err
		}
		each(key, row[len(t.key):], found)
	}
	return rows.Err()
}

func (t *tableDiff) lookUpOne(ctx context.Context, stmt *sql.Stmt, key []any) ([]any, error) {
	rows, err := stmt.QueryContext(ctx, key...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	return scanRow(rows, len(t.columns))
}

// compare takes a row that both sides have.
func (t *tableDiff) compare(key, kept, now []any) {
	var changed []int
	for i := range kept {
		if !same(kept[i], now[i]) {
			changed = append(changed, i)
		}
	}
	if len(changed) == 0 {
		return
	}
	t.found.Changed++
	if t.leaveOut() {
		return
	}
	var was, is []string
	for _, i := range changed {
		was = append(was, identifier(t.columns[i])+" = "+literal(kept[i]))
		is = append(is, identifier(t.columns[i])+" = "+literal(now[i]))
	}
	t.out.Comment("now: %s", strings.Join(is, ", "))
	t.out.statement(fmt.Sprintf("UPDATE %s SET %s WHERE %s", identifier(t.found.Name), strings.Join(was, ", "), t.where(key)))
}

func (t *tableDiff) onlyKept(key, row []any) {
	t.found.Kept++
	if !t.leaveOut() {
		t.out.statement(t.insert(key, row))
	}
}

func (t *tableDiff) onlyNow(key, row []any) {
	t.found.Now++
	if t.leaveOut() {
		return
	}
	t.out.Comment("only now: %s;", t.insert(key, row))
	if key != nil { // the table itself is not there otherwise
		t.out.statement(fmt.Sprintf("DELETE FROM %s WHERE %s", identifier(t.found.Name), t.where(key)))
	}
}

// leaveOut tells whether enough rows were written already.
func (t *tableDiff) leaveOut() bool {
	if t.found.Kept+t.found.Now+t.found.Changed <= int64(t.limit) {
		return false
	}
	t.found.LeftOut++
	return true
}

// insert writes the statement that makes a row. A rowid that is no column goes
// with it, so that the same row is meant.
func (t *tableDiff) insert(key, row []any) string {
	columns, values := quoted(t.columns), slices.Clone(row)
	if len(key) == 1 && len(t.key) == 1 && !slices.Contains(columns, t.key[0]) {
		columns, values = slices.Insert(columns, 0, t.key[0]), slices.Insert(values, 0, key[0])
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = literal(v)
	}
	return fmt.Sprintf("INSERT INTO %s(%s) VALUES(%s)", identifier(t.found.Name), strings.Join(columns, ", "), strings.Join(texts, ", "))
}

func (t *tableDiff) where(key []any) string {
	tests := make([]string, len(key))
	for i, v := range key {
		tests[i] = t.key[i] + " IS " + literal(v)
	}
	return strings.Join(tests, " AND ")
}
