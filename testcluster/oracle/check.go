package oracle

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"hash/crc32"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "github.com/mattn/go-sqlite3" // the driver
)

// Found is how one database compares with the record.
type Found struct {
	Rows    int   // rows of the register
	Missing []Key // committed, and not there
	Phantom []Key // there, and never committed: unknown or rolled back
	Wrong   []Key // there with other content
	Doubted []Key // there, and the writer never learned it
	Lost    []Key // not there, and the writer never learned it
}

// Err is nil if every commit is there and nothing else.
func (f Found) Err() error {
	if len(f.Missing)+len(f.Phantom)+len(f.Wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%d commits missing %v, %d rows that nobody committed %v, %d with other content %v",
		len(f.Missing), some(f.Missing), len(f.Phantom), some(f.Phantom), len(f.Wrong), some(f.Wrong))
}

func some(keys []Key) []Key { return keys[:min(5, len(keys))] }

// Check compares the database at path with the record, row by row. It opens the
// file as an ordinary reader and changes nothing.
func (r *Record) Check(ctx context.Context, path string) (Found, error) {
	rows, err := readRegister(ctx, path)
	if err != nil {
		return Found{}, err
	}
	f := Found{Rows: len(rows)}
	for k, got := range rows {
		want, known := r.rows[k]
		switch {
		case !known || want.state == aborted:
			f.Phantom = append(f.Phantom, k)
		case got != want.crc:
			f.Wrong = append(f.Wrong, k)
		case want.state == doubtful:
			f.Doubted = append(f.Doubted, k)
		}
	}
	for k, want := range r.rows {
		if _, there := rows[k]; there {
			continue
		}
		switch want.state {
		case committed:
			f.Missing = append(f.Missing, k)
		case doubtful:
			f.Lost = append(f.Lost, k)
		}
	}
	for _, keys := range [][]Key{f.Missing, f.Phantom, f.Wrong, f.Doubted, f.Lost} {
		slices.SortFunc(keys, func(a, b Key) int {
			return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Seq, b.Seq))
		})
	}
	return f, nil
}

// FindIn looks for rows with the recorded content in copies of the database,
// and returns those that are in none.
func (r *Record) FindIn(ctx context.Context, want []Key, copies []string) ([]Key, error) {
	left := slices.Clone(want)
	for _, path := range copies {
		if len(left) == 0 {
			return nil, nil
		}
		rows, err := readRegister(ctx, path)
		if err != nil {
			return nil, err
		}
		left = slices.DeleteFunc(left, func(k Key) bool {
			crc, there := rows[k]
			return there && crc == r.rows[k].crc
		})
	}
	return left, nil
}

// Quarantined lists the copies of databases below dataDir/quarantine.
func Quarantined(dataDir string) ([]string, error) {
	var paths []string
	root := filepath.Join(dataDir, "quarantine")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".db") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	return paths, nil
}

// readRegister returns the CRC-32 of each row's payload, computed anew from
// what the database holds, not taken from its column.
func readRegister(ctx context.Context, path string) (rows map[Key]uint32, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("read register: %w", err)
	}
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=rw&_busy_timeout=5000")
	if err != nil {
		return nil, fmt.Errorf("read register of %s: %w", path, err)
	}
	defer db.Close()
	found, err := db.QueryContext(ctx, "SELECT worker, seq, payload, crc FROM register")
	if err != nil {
		return nil, fmt.Errorf("read register of %s: %w", path, err)
	}
	defer found.Close()
	rows = map[Key]uint32{}
	for found.Next() {
		var k Key
		var payload sql.RawBytes
		var noted uint32
		if err := found.Scan(&k.Worker, &k.Seq, &payload, &noted); err != nil {
			return nil, fmt.Errorf("read register of %s: %w", path, err)
		}
		crc := Sum(payload)
		if crc != noted {
			return nil, fmt.Errorf("read register of %s: row %v holds CRC %08x of a payload with CRC %08x", path, k, noted, crc)
		}
		rows[k] = crc
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read register of %s: %w", path, err)
	}
	return rows, nil
}

// Sum is the CRC that record and register hold of a payload.
func Sum(payload []byte) uint32 { return crc32.ChecksumIEEE(payload) }
