package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lsnode/lsnode/testcluster/oracle"
)

// Opening is what each account holds at first; the sum over all never changes.
const Opening = 1000

const bankSchema = `
CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS register(worker INTEGER, seq INTEGER, payload BLOB, crc INTEGER, PRIMARY KEY(worker, seq));
CREATE TABLE IF NOT EXISTS last(worker INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER);
CREATE TABLE IF NOT EXISTS item(id INTEGER PRIMARY KEY, n INTEGER, body TEXT);`

// Prepare makes the bank's database at path, in WAL mode, with accounts and
// nothing else. It does nothing to one that is there already.
func Prepare(path string, accounts int64) error {
	c, err := Open(path, Settings{Create: true, Busy: 5 * time.Second})
	if err != nil {
		return err
	}
	err = errors.Join(c.Exec("PRAGMA journal_mode=WAL"), c.Exec("BEGIN IMMEDIATE"), c.Exec(bankSchema),
		c.Exec("INSERT OR IGNORE INTO meta VALUES('total', ?)", accounts*Opening),
		c.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<?)
			INSERT OR IGNORE INTO account(id, balance) SELECT i, ? FROM n`, accounts, Opening),
		c.Exec("COMMIT"), c.Close())
	if err != nil {
		return fmt.Errorf("prepare bank: %w", err)
	}
	return nil
}

// writer makes registered transactions on a database. It holds the connection
// and opens it anew where an application would.
type writer struct {
	*run
	rng      *rand.Rand
	log      *oracle.Log
	conn     *Conn
	accounts int64
	vacuumed bool
	stmts    map[string]*sql.Stmt
}

func (r *run) newWriter() (*writer, error) {
	w := &writer{run: r, rng: rand.New(rand.NewPCG(r.seed, uint64(r.worker)))}
	if r.oracle != "" {
		log, err := oracle.OpenLog(r.oracle, r.worker)
		if err != nil {
			return nil, err
		}
		w.log = log
		// After a restart other rows than the first time.
		w.rng = rand.New(rand.NewPCG(r.seed, uint64(r.worker)<<32+uint64(log.Next())))
	}
	return w, nil
}

func (w *writer) close() error {
	err := w.conn.Close()
	if w.log != nil {
		err = errors.Join(err, w.log.Close())
	}
	return err
}

func (w *writer) open() error {
	if w.conn != nil {
		return nil
	}
	c, err := Open(w.db, Settings{Busy: 5 * time.Second, Synchronous: w.sync, AutoCheckpoint: w.autockpt})
	if err != nil {
		return err
	}
	if err := c.Row("SELECT count(*) FROM account", &w.accounts); err != nil {
		return errors.Join(err, c.Close())
	}
	w.conn, w.stmts = c, map[string]*sql.Stmt{}
	return nil
}

func (w *writer) reset() {
	w.conn.Close()
	w.conn = nil
}

// exec runs a prepared statement on the current connection.
func (w *writer) exec(query string, args ...any) error {
	stmt := w.stmts[query]
	if stmt == nil {
		var err error
		if stmt, err = w.conn.Prepare(query); err != nil {
			return err
		}
		w.stmts[query] = stmt
	}
	_, err := stmt.Exec(args...)
	return err
}

// commit makes one registered transaction: change, then the row of the
// register, both noted. The error says why it did not happen; what can be tried
// again is told apart by [IsReadonly], [IsBusy].
func (w *writer) commit(seq int64, payload []byte, change func() error) error {
	crc := oracle.Sum(payload)
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	// BEGIN IMMEDIATE succeeds, as a read, on a connection that already knows the
	// database to be read-only. So a change first, and the intent only then.
	if err := change(); err != nil {
		return errors.Join(err, w.exec("ROLLBACK"))
	}
	if w.log != nil {
		if err := w.log.Intend(seq, crc); err != nil {
			return err
		}
	}
	err := w.exec("INSERT INTO register(worker, seq, payload, crc) VALUES(?, ?, ?, ?)", w.worker, seq, payload, crc)
	if err == nil {
		err = w.exec("INSERT INTO last VALUES(?, ?) ON CONFLICT(worker) DO UPDATE SET seq=excluded.seq", w.worker, seq)
	}
	if err != nil {
		return errors.Join(err, w.abort(seq))
	}
	if err := w.exec("COMMIT"); err != nil {
		if IsBusy(err) || IsReadonly(err) {
			return errors.Join(err, w.abort(seq))
		}
		return err // in doubt
	}
	if w.log != nil {
		return w.log.Committed(seq)
	}
	return nil
}

// abort rolls back and, only if that is certain, notes it.
func (w *writer) abort(seq int64) error {
	if err := w.exec("ROLLBACK"); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	if w.log == nil {
		return nil
	}
	return w.log.Aborted(seq)
}

// transfer moves money between a few accounts.
func (w *writer) transfer() error {
	for range 1 + w.rng.IntN(3) {
		from, to, sum := 1+w.rng.Int64N(w.accounts), 1+w.rng.Int64N(w.accounts), w.rng.Int64N(100)
		if err := w.exec("UPDATE account SET balance=balance-? WHERE id=?", sum, from); err != nil {
			return err
		}
		if err := w.exec("UPDATE account SET balance=balance+? WHERE id=?", sum, to); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) payload(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := w.rng.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j], v = byte(v), v>>8
		}
	}
	return b
}

// runBank transfers money until it is told to end.
func runBank(ctx context.Context, r *run) error {
	return r.write(ctx, func(w *writer, seq int64) error {
		return w.commit(seq, w.payload(20+w.rng.IntN(200)), w.transfer)
	})
}

// write runs step for each sequence number, and again for the next one after
// what an application survives: a busy database, and, if it was told to open
// again, a read-only or missing one.
func (r *run) write(ctx context.Context, step func(w *writer, seq int64) error) (err error) {
	w, err := r.newWriter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	seq := int64(1)
	if w.log != nil {
		seq = w.log.Next()
	}
	start, tries := time.Now(), int64(0)
	for ctx.Err() == nil && (r.count == 0 || r.report.Count < r.count) && (r.stopAfter == 0 || time.Since(start) < r.stopAfter) {
		r.pace(ctx, start, tries)
		tries++
		begun := time.Now()
		err := w.open()
		if err == nil {
			err = step(w, seq)
		}
		switch {
		case err == nil:
			r.succeeded(time.Since(begun), seq)
		case IsBusy(err):
			r.report.Busy++
		case r.reopen && (IsReadonly(err) || isMissing(err)):
			r.report.Refused++
			r.report.First = 0
			w.reset()
			wait(ctx, time.Millisecond)
		default:
			return fmt.Errorf("commit %d: %w", seq, err)
		}
		seq++
		if w.log != nil {
			seq = w.log.Next()
		}
		if err := r.tell(); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) succeeded(took time.Duration, seq int64) {
	r.report.Count++
	r.report.Last = Clock()
	if r.report.First == 0 {
		r.report.First = r.report.Last
	}
	r.report.Seq = max(r.report.Seq, seq)
	r.report.Slowest = max(r.report.Slowest, int64(took))
	if took > r.limit {
		r.report.Slow++
	}
}
