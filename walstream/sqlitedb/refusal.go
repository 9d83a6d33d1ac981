package sqlitedb

import (
	"errors"
	"fmt"
)

// Reason says why a file can't be replicated. It is text for people, and
// comparable.
type Reason string

// The reasons.
const (
	NotFound    Reason = "it does not exist"
	NotRegular  Reason = "it is not a regular file"
	Empty       Reason = "it is empty: no database has been made in it yet"
	NotDatabase Reason = "it is not a SQLite database"
	Encrypted   Reason = "it is encrypted, or not a SQLite database"
	TooNew      Reason = "it was made for a later version of SQLite"
	Exclusive   Reason = "another process keeps it locked: EXCLUSIVE locking mode, or a long transaction outside WAL mode"
	NotWAL      Reason = "it is not in WAL mode"
	NoWAL       Reason = "it can't be put in WAL mode"
	Unreadable  Reason = "SQLite can't read it"
	NoAccess    Reason = "access is denied: lsnode must be able to read and write the database, its -wal and its -shm"
)

// Refusal is the error of [Open] for a file that is no fit database. The file
// may become one later: opening it can be tried again.
type Refusal struct {
	Path   string
	Reason Reason
	Err    error // what was found; may be nil
}

// Error says which file, why, and what was found.
func (r *Refusal) Error() string {
	if r.Err == nil {
		return fmt.Sprintf("open database %s: %s", r.Path, r.Reason)
	}
	return fmt.Sprintf("open database %s: %s: %v", r.Path, r.Reason, r.Err)
}

// Unwrap returns what was found.
func (r *Refusal) Unwrap() error { return r.Err }

// Refused returns why [Open] refused, or "" if err is no refusal.
func Refused(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}
