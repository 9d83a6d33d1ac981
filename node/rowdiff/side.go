package rowdiff

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"
)

// side is one of the two databases, in one read transaction.
type side struct {
	db   *sql.DB
	conn *sql.Conn
}

// openSide opens a database for reading. A still one is a file that nobody
// writes: nothing is locked or made beside it.
func openSide(ctx context.Context, path string, still bool) (*side, error) {
	query := url.Values{"mode": {"ro"}}
	if still {
		query.Set("immutable", "1")
	}
	// Without the two slashes of an authority, so that a relative path stays one.
	name := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query.Encode()
	db, err := sql.Open("sqlite3", name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &side{db: db}
	if s.conn, err = db.Conn(ctx); err == nil {
		_, err = s.conn.ExecContext(ctx, "PRAGMA trusted_schema=OFF; PRAGMA query_only=ON; BEGIN; SELECT count(*) FROM sqlite_schema")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.close())
	}
	return s, nil
}

func (s *side) close() error {
	var err error
	if s.conn != nil {
		err = s.conn.Close()
	}
	return errors.Join(err, s.db.Close())
}

// object is an entry of the schema that has a definition.
type object struct{ kind, name, sql string }

// objects returns the schema: tables first, then what refers to them.
func (s *side) objects(ctx context.Context) ([]object, error) {
	rows, err := s.conn.QueryContext(ctx, `SELECT type, name, sql FROM sqlite_schema
		WHERE sql IS NOT NULL AND (name NOT LIKE 'sqlite\_%' ESCAPE '\' OR name = 'sqlite_sequence')
		ORDER BY type <> 'table', name`)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	defer rows.Close()
	var all []object
	for rows.Next() {
		var o object
		if err := rows.Scan(&o.kind, &o.name, &o.sql); err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		all = append(all, o)
	}
	return all, rows.Err()
}

// table is a table as one side has it.
type table struct {
	name    string
	columns []string // that hold values of their own: no generated ones
	primary []string // columns of the declared primary key, in its order
	rowid   string   // a name by which the rowid can be had, or ""
	alias   bool     // the primary key is another name of the rowid
}

// table reads what columns and keys a table has.
func (s *side) table(ctx context.Context, name string) (t table, err error) {
	t.name = name
	rows, err := s.conn.QueryContext(ctx, "SELECT name, pk, hidden FROM pragma_table_xinfo(?)", name)
	if err != nil {
		return t, fmt.Errorf("read columns: %w", err)
	}
	defer rows.Close()
	at := map[int]string{}
	var taken []string
	for rows.Next() {
		var column string
		var pk, hidden int
		if err := rows.Scan(&column, &pk, &hidden); err != nil {
			return t, fmt.Errorf("read columns: %w", err)
		}
		taken = append(taken, strings.ToLower(column))
		if hidden == 0 {
			t.columns = append(t.columns, column)
		}
		if pk > 0 {
			at[pk] = column
		}
	}
	for i := 1; i <= len(at); i++ {
		t.primary = append(t.primary, at[i])
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return t, err
	}
	for _, alias := range []string{"rowid", "_rowid_", "oid"} {
		if !slices.Contains(taken, alias) && s.prepares(ctx, fmt.Sprintf("SELECT %s FROM %s", alias, identifier(name))) {
			t.rowid = alias
			break
		}
	}
	if len(t.primary) == 1 && t.rowid != "" {
		// Any other key has an index.
		err = s.conn.QueryRowContext(ctx, "SELECT NOT EXISTS(SELECT 1 FROM pragma_index_list(?) WHERE origin = 'pk')", name).Scan(&t.alias)
	}
	return t, err
}

// prepares tells whether a statement means something here.
func (s *side) prepares(ctx context.Context, query string) bool {
	stmt, err := s.conn.PrepareContext(ctx, query)
	return err == nil && stmt.Close() == nil
}

// hasNull tells whether a key's column is NULL somewhere, so that the key does
// not tell rows apart.
func (s *side) hasNull(ctx context.Context, t table) (found bool, err error) {
	var tests []string
	for _, c := range t.primary {
		tests = append(tests, identifier(c)+" IS NULL")
	}
	query := fmt.Sprintf("SELECT EXISTS(SELECT 1 FROM %s WHERE %s)", identifier(t.name), strings.Join(tests, " OR "))
	err = s.conn.QueryRowContext(ctx, query).Scan(&found)
	return found, err
}

// selection returns the start of a query for a table's values, without anything
// by which the driver would convert them.
func selection(t table, columns []string) string {
	values := make([]string, len(columns))
	for i, c := range columns {
		values[i] = "+" + identifier(c)
	}
	return fmt.Sprintf("SELECT %s FROM %s", strings.Join(values, ", "), identifier(t.name))
}

// scanRow reads the values of a row.
func scanRow(rows *sql.Rows, columns int) ([]any, error) {
	values := make([]any, columns)
	into := make([]any, columns)
	for i := range values {
		into[i] = &values[i]
	}
	return values, rows.Scan(into...)
}
