package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// quarantineVersion is the version of the entries' description.
const quarantineVersion = 1

// Kept describes one entry of a [Quarantine]: commits that a node had and the
// cluster has not, kept as a plain copy of the database that holds them. It is
// stored as entry.json beside the copy.
type Kept struct {
	Version  int    `json:"version"`
	ID       string `json:"id"` // the entry's own name
	Database string `json:"database"`
	Node     string `json:"node"`           // name of the node that had them
	Path     string `json:"path,omitempty"` // where that node has the database
	// Epoch is the last one of which the node had logged anything.
	Epoch uint64 `json:"epoch,omitempty"`
	// From is the last position that the cluster shares, To the last that this
	// node had logged.
	From string `json:"from"`
	To   string `json:"to"`
	// Logged counts commits that were captured and logged, Uncaptured those that
	// were only in the file. Exact tells whether Uncaptured was counted in the
	// WAL; otherwise the WAL was gone and it is a lower bound.
	Logged     uint64 `json:"logged_commits"`
	Uncaptured int    `json:"uncaptured_commits"`
	Exact      bool   `json:"exact"`
	// Begun and Ended are when the first and the last of the logged commits were
	// captured, by this node's clock; zero if none was logged.
	Begun time.Time `json:"logged_from,omitzero"`
	Ended time.Time `json:"logged_to,omitzero"`
	// Written is when the database's WAL was written last, which is when the last
	// commit that was not captured was made at the latest; zero if there is none.
	Written time.Time `json:"written,omitzero"`
	Found   time.Time `json:"found"`
	File    string    `json:"file"` // name of the copy in the entry's directory
}

// Commits counts all commits of the entry: at least so many, unless it is exact.
func (k Kept) Commits() uint64 { return k.Logged + uint64(k.Uncaptured) }

// pageSource is the content of a database at one instant.
type pageSource interface {
	// PageCount is the size of the database in pages.
	PageCount() uint32
	// ReadPage reads page no, 1-based, into buf, which is one page long.
	ReadPage(no uint32, buf []byte) error
}

// Quarantine is a node's directory of diverged content. It may be read and
// changed by several processes at once, whether the node runs or not: each entry
// appears whole and at once, and goes so.
type Quarantine struct {
	dir string
}

// QuarantineOf returns the quarantine of the node that has a data dir.
func QuarantineOf(dataDir string) Quarantine {
	return Quarantine{dir: filepath.Join(dataDir, "quarantine")}
}

// keep stores the content of a database with its description. The entry is
// durable on return; one that was cut off by a crash is never listed.
func (q Quarantine) keep(entry Kept, pages pageSource, pageSize uint32) (path string, err error) {
	entry.Version = quarantineVersion
	entry.File = entry.Database + ".db"
	entry.ID = fmt.Sprintf("%s-%s", entry.Found.UTC().Format("20060102T150405.000000000"), entry.Database)
	tmp := filepath.Join(q.dir, ".partial-"+entry.ID)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return "", fmt.Errorf("make quarantine entry: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := writePages(filepath.Join(tmp, entry.File), pages, pageSize); err != nil {
		return "", fmt.Errorf("copy database into quarantine: %w", err)
	}
	text, err := json.MarshalIndent(entry, "", "  ")
	if err != nil {
		return "", fmt.Errorf("describe quarantine entry: %w", err)
	}
	if err := writeSynced(filepath.Join(tmp, "entry.json"), append(text, '\n')); err != nil {
		return "", err
	}
	if err := syncDir(tmp); err != nil {
		return "", err
	}
	final := filepath.Join(q.dir, entry.ID)
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("publish quarantine entry: %w", err)
	}
	return final, syncDir(q.dir)
}

// List returns the whole entries, oldest first. Entries that can't be read are
// left out and named by the error, beside those that can.
func (q Quarantine) List() ([]Kept, error) {
	dirs, err := os.ReadDir(q.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	var (
		entries []Kept
		errs    []error
	)
	for _, d := range dirs {
		if !d.IsDir() || d.Name()[0] == '.' {
			continue
		}
		entry, err := q.read(d.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		default:
			entries = append(entries, entry)
		}
	}
	return entries, errors.Join(errs...)
}

// read returns one entry.
func (q Quarantine) read(id string) (entry Kept, err error) {
	text, err := os.ReadFile(filepath.Join(q.dir, id, "entry.json"))
	if err != nil {
		return entry, fmt.Errorf("read quarantine entry: %w", err)
	}
	if err := json.Unmarshal(text, &entry); err != nil || entry.Version != quarantineVersion {
		return entry, fmt.Errorf("read quarantine entry %s: not of version %d", id, quarantineVersion)
	}
	if entry.File != filepath.Base(entry.File) {
		return entry, fmt.Errorf("read quarantine entry %s: its copy is elsewhere", id)
	}
	entry.ID = id
	return entry, nil
}

// commits counts the commits that are kept, by database.
func (q Quarantine) commits() (map[string]int, error) {
	entries, err := q.List()
	sums := map[string]int{}
	for _, e := range entries {
		sums[e.Database] += int(e.Commits())
	}
	return sums, err
}

// writePages writes a database file as an ordinary, unfenced one.
func writePages(path string, pages pageSource, pageSize uint32) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, pageSize)
	for no := uint32(1); no <= pages.PageCount(); no++ {
		if err := pages.ReadPage(no, buf); err != nil {
			return fmt.Errorf("read page %d: %w", no, err)
		}
		if no == 1 {
			asPlainFile(buf)
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Sync()
}

// asPlainFile turns page 1 into that of an ordinary database in rollback mode:
// such a copy opens without a WAL beside it, also from a read-only directory.
func asPlainFile(page1 []byte) { page1[18], page1[19] = 1, 1 }

// logged counts the commits between two positions of one line.
func logged(from, to walstream.Position) uint64 {
	if to.TXID <= from.TXID {
		return 0
	}
	return uint64(to.TXID - from.TXID)
}
