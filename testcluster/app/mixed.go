package app

import (
	"context"
	"fmt"
	"os"
)

// growStep is the payload of one transaction that only makes the database
// larger.
const growStep = 32 << 20

// runMixed makes transactions of all kinds: transfers, inserts, updates of the
// same rows, deletes, schema changes, large payloads, once a very large one,
// and VACUUM between them. Each but VACUUM is registered.
func runMixed(ctx context.Context, r *run) error {
	grown := false
	return r.write(ctx, func(w *writer, seq int64) error {
		if !grown {
			info, err := os.Stat(r.db)
			if err == nil && info.Size() < r.maxSize {
				return w.commit(seq, w.payload(growStep), w.transfer)
			}
			grown = true
			if r.maxSize > 0 {
				r.report.Slowest, r.report.Slow = 0, 0
			}
		}
		return w.mixed(seq)
	})
}

// mixed makes one transaction, of a kind that depends on its number and the
// seed only.
func (w *writer) mixed(seq int64) error {
	// Of a database of a gigabyte and more once is enough: each time is as much
	// to write, ship and apply as the whole database.
	if seq%700 == 350 && (w.maxSize == 0 || !w.vacuumed) {
		w.vacuumed = true
		if err := w.exec("VACUUM"); err != nil {
			return fmt.Errorf("vacuum: %w", err)
		}
	}
	size := 20 + w.rng.IntN(200)
	change := w.transfer
	switch pick := w.rng.IntN(100); {
	case w.blob > 0 && seq%1000 == 500:
		size = int(w.blob)
	case seq%100 == 99:
		change = func() error { return w.schema(int(seq / 100)) }
	case pick < 5:
		size = 10_000 + w.rng.IntN(90_000)
	case pick < 30:
		change = w.insert
	case pick < 50:
		change = w.update
	case pick < 60:
		change = w.remove
	}
	return w.commit(seq, w.payload(size), change)
}

func (w *writer) insert() error {
	for range 1 + w.rng.IntN(20) {
		if err := w.exec("INSERT INTO item(n, body) VALUES(?, ?)", w.rng.IntN(1000), fmt.Sprintf("%x", w.payload(w.rng.IntN(300)))); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) update() error {
	return w.exec("UPDATE item SET n=n+1, body=body||? WHERE id IN (SELECT id FROM item ORDER BY id LIMIT 10)",
		string(rune('a'+w.rng.IntN(26))))
}

func (w *writer) remove() error {
	return w.exec("DELETE FROM item WHERE id IN (SELECT id FROM item WHERE n%7=? LIMIT 60)", w.rng.IntN(7))
}

// schema changes the schema and moves money, so that both must be seen
// together. Statements that depend on it are prepared anew by SQLite.
func (w *writer) schema(n int) error {
	var err error
	switch n % 5 {
	case 0:
		err = w.conn.Exec(fmt.Sprintf("ALTER TABLE item ADD COLUMN extra%d_%d INTEGER DEFAULT %d", w.worker, n, n))
	case 1:
		err = w.conn.Exec("CREATE INDEX IF NOT EXISTS item_n ON item(n, body)")
	case 2:
		err = w.conn.Exec(fmt.Sprintf("CREATE TABLE copy%d_%d AS SELECT * FROM item", w.worker, n))
	case 3:
		err = w.conn.Exec("DROP INDEX IF EXISTS item_n")
	case 4:
		err = w.conn.Exec(fmt.Sprintf("DROP TABLE IF EXISTS copy%d_%d", w.worker, n-2))
	}
	if err != nil {
		return err
	}
	return w.transfer()
}
