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

// quarantined describes one entry: commits that this node had and the cluster
// has not, kept as a plain copy of the database that holds them.
type quarantined struct {
	Version  int    `json:"version"`
	Database string `json:"database"`
	Node     string `json:"node"`
	// From is the last position that the cluster shares, To the last that this
	// node had logged.
	From string `json:"from"`
	To   string `json:"to"`
	// Logged counts commits that were captured and logged, Uncaptured those that
	// were only in the file. Exact tells whether Uncaptured was counted in the
	// WAL; otherwise the WAL was gone and it is a lower bound.
	Logged     uint64    `json:"logged_commits"`
	Uncaptured int       `json:"uncaptured_commits"`
	Exact      bool      `json:"exact"`
	Found      time.Time `json:"found"`
	File       string    `json:"file"`
}

// commits counts all commits of the entry.
func (q quarantined) commits() uint64 { return q.Logged + uint64(q.Uncaptured) }

// pageSource is the content of a database at one instant.
type pageSource interface {
	// PageCount is the size of the database in pages.
	PageCount() uint32
	// ReadPage reads page no, 1-based, into buf, which is one page long.
	ReadPage(no uint32, buf []byte) error
}

// quarantine is the directory of diverged content.
type quarantine struct {
	dir string
}

// keep stores the content of a database with its description. The entry is
// durable on return; one that was cut off by a crash is never listed.
func (q quarantine) keep(entry quarantined, pages pageSource, pageSize uint32) (path string, err error) {
	entry.Version = quarantineVersion
	entry.File = entry.Database + ".db"
	id := fmt.Sprintf("%s-%s", entry.Found.UTC().Format("20060102T150405.000000000"), entry.Database)
	tmp := filepath.Join(q.dir, ".partial-"+id)
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
	final := filepath.Join(q.dir, id)
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("publish quarantine entry: %w", err)
	}
	return final, syncDir(q.dir)
}

// list returns the whole entries, oldest first, and removes nothing.
func (q quarantine) list() ([]quarantined, error) {
	dirs, err := os.ReadDir(q.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	var entries []quarantined
	for _, d := range dirs {
		if !d.IsDir() || d.Name()[0] == '.' {
			continue
		}
		text, err := os.ReadFile(filepath.Join(q.dir, d.Name(), "entry.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return entries, fmt.Errorf("read quarantine entry: %w", err)
		}
		var entry quarantined
		if err := json.Unmarshal(text, &entry); err != nil || entry.Version != quarantineVersion {
			return entries, fmt.Errorf("read quarantine entry %s: not of version %d", d.Name(), quarantineVersion)
		}
		entries = append(entries, entry)
	}
	return entries, nil
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
