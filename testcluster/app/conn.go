package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/mattn/go-sqlite3"
)

// Conn is one SQLite connection, as an ordinary Go program has it. One
// goroutine uses it at a time.
type Conn struct {
	db   *sql.DB
	conn *sql.Conn
}

// Settings are what an application sets on its connection.
type Settings struct {
	Create         bool          // make the file if there is none; false
	Busy           time.Duration // busy timeout; 0
	Synchronous    string        // PRAGMA synchronous; SQLite's own
	AutoCheckpoint int           // PRAGMA wal_autocheckpoint, if not zero; SQLite's own
}

// Open opens the database at path with one connection.
func Open(path string, s Settings) (*Conn, error) {
	mode := "rw"
	if s.Create {
		mode = "rwc"
	} else if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	q := url.Values{"mode": {mode}, "_busy_timeout": {strconv.FormatInt(s.Busy.Milliseconds(), 10)}}
	if s.Synchronous != "" {
		q.Set("_synchronous", s.Synchronous)
	}
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", path, err), db.Close())
	}
	c := &Conn{db, conn}
	if s.AutoCheckpoint != 0 {
		if err := c.Exec(fmt.Sprintf("PRAGMA wal_autocheckpoint=%d", s.AutoCheckpoint)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Exec runs statements.
func (c *Conn) Exec(query string, args ...any) error {
	_, err := c.conn.ExecContext(context.Background(), query, args...)
	return err
}

// Row runs a query and scans its first row.
func (c *Conn) Row(query string, dest ...any) error {
	return c.conn.QueryRowContext(context.Background(), query).Scan(dest...)
}

// Query runs a query.
func (c *Conn) Query(query string, args ...any) (*sql.Rows, error) {
	return c.conn.QueryContext(context.Background(), query, args...)
}

// Prepare prepares a statement on this connection.
func (c *Conn) Prepare(query string) (*sql.Stmt, error) {
	return c.conn.PrepareContext(context.Background(), query)
}

// Close closes the connection. It does nothing on nil.
func (c *Conn) Close() error {
	if c == nil {
		return nil
	}
	return errors.Join(c.conn.Close(), c.db.Close())
}

// IsReadonly tells whether SQLite refused a write because the database is
// read-only.
func IsReadonly(err error) bool { return isCode(err, sqlite3.ErrReadonly) }

// IsBusy tells whether another connection holds the lock, also in the forms in
// which only a new transaction can go on.
func IsBusy(err error) bool {
	return isCode(err, sqlite3.ErrBusy) || isCode(err, sqlite3.ErrLocked)
}

func isMissing(err error) bool {
	return errors.Is(err, os.ErrNotExist) || isCode(err, sqlite3.ErrCantOpen)
}

func isCode(err error, code sqlite3.ErrNo) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == code
}
