package sqlitedb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/mattn/go-sqlite3"
)

// Conn is one SQLite connection. It is used by one goroutine at a time. It never
// checkpoints unless told to, and never deletes the WAL.
type Conn struct {
	db *DB // nil while the DB is being opened
	c  *sqlite3.SQLiteConn
}

// dial opens a connection to an existing file.
func dial(path string, busy time.Duration) (*Conn, error) {
	// SQLite's URI, so that any character may be in the path; go-sqlite3 reads its
	// own parameters after the first question mark.
	dsn := (&url.URL{Scheme: "file", OmitHost: true, Path: path}).String()
	dsn += fmt.Sprintf("?mode=rw&_mutex=no&_busy_timeout=%d", busy.Milliseconds())
	dc, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	c := &Conn{c: dc.(*sqlite3.SQLiteConn)}
	if err := c.Exec("PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=16"); err != nil {
		return nil, errors.Join(err, c.c.Close())
	}
	if err := c.c.SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1); err != nil {
		return nil, errors.Join(fmt.Errorf("make the WAL persistent: %w", err), c.c.Close())
	}
	return c, nil
}

// Conn opens another connection. It is closed with [Conn.Close], or by
// [DB.Close].
func (db *DB) Conn(ctx context.Context) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.mu.closed {
		return nil, fmt.Errorf("connect to %s: %w", db.path, ErrClosed)
	}
	c, err := dial(db.real, db.busy)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", db.path, err)
	}
	c.db = db
	db.mu.conns[c] = struct{}{}
	return c, nil
}

// Close ends the connection and its transaction. A second Close does nothing.
func (c *Conn) Close() error {
	if c.db == nil {
		return c.c.Close()
	}
	c.db.mu.Lock()
	defer c.db.mu.Unlock()
	if _, ok := c.db.mu.conns[c]; !ok {
		return nil
	}
	delete(c.db.mu.conns, c)
	return c.c.Close()
}

// Exec runs statements that give no rows that matter. Each is finished before
// the next one begins.
func (c *Conn) Exec(sql string) error {
	_, err := c.c.Exec(sql, nil)
	return err
}

// BeginRead begins a read transaction and really takes its lock: on a mark, or
// on lock 0 if every frame has been copied. It waits for at most the busy
// timeout, which only a recovery of the wal-index makes it do.
func (c *Conn) BeginRead() error {
	// This pragma reads page 1 and needs no schema, so that nothing in the user's
	// tables can make it slow or fail.
	if err := c.Exec("BEGIN; PRAGMA user_version"); err != nil {
		err = fmt.Errorf("begin read: %w", err)
		if !c.c.AutoCommit() {
			err = errors.Join(err, c.EndRead())
		}
		return err
	}
	return nil
}

// EndRead ends the transaction that BeginRead began.
func (c *Conn) EndRead() error {
	if err := c.Exec("COMMIT"); err != nil {
		return fmt.Errorf("end read: %w", err)
	}
	return nil
}

// Row returns the columns of the first row of a query. Errors: [io.EOF] if
// there is none.
func (c *Conn) Row(sql string) (_ []driver.Value, err error) {
	rows, err := c.c.Query(sql, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	vals := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(vals); err != nil {
		return nil, err
	}
	return vals, nil
}

// CheckpointMode is one of SQLite's kinds of checkpoint.
type CheckpointMode string

// The kinds of checkpoint.
const (
	Passive  CheckpointMode = "PASSIVE"
	Full     CheckpointMode = "FULL"
	Restart  CheckpointMode = "RESTART"
	Truncate CheckpointMode = "TRUNCATE"
)

// Checkpoint runs a checkpoint. It returns how many frames the WAL has and how
// many of them are copied; busy tells that others kept it from coming to its
// end.
func (c *Conn) Checkpoint(mode CheckpointMode) (frames, copied int, busy bool, err error) {
	row, err := c.Row("PRAGMA wal_checkpoint(" + string(mode) + ")")
	if err != nil {
		if isBusy(err) {
			return 0, 0, true, nil
		}
		return 0, 0, false, fmt.Errorf("checkpoint %s: %w", mode, err)
	}
	if len(row) != 3 {
		return 0, 0, false, fmt.Errorf("checkpoint %s: %d columns, want 3", mode, len(row))
	}
	var n [3]int64
	for i := range n {
		n[i], _ = row[i].(int64)
	}
	return int(n[1]), int(n[2]), n[0] != 0, nil
}

// text returns the first column of the first row as text.
func (c *Conn) text(sql string) (string, error) {
	row, err := c.Row(sql)
	if err != nil {
		return "", err
	}
	if len(row) == 0 {
		return "", io.EOF
	}
	switch v := row[0].(type) {
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	}
	return fmt.Sprint(row[0]), nil
}

func code(err error) sqlite3.ErrNo {
	var e sqlite3.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func isBusy(err error) bool {
	c := code(err)
	return c == sqlite3.ErrBusy || c == sqlite3.ErrLocked
}
