package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// doubt says why a database's file may hold something else than its log says.
// It is kept in a file of its own, which is made before the reason begins and
// removed after file and log were made equal.
type doubt string

const (
	noDoubt doubt = ""
	// reigned: the application could write. What it wrote and nobody captured is
	// kept in quarantine before the file is changed.
	reigned doubt = "reigned"
	// repairing: what was worth keeping is kept; the file is between two contents
	// and only good for being repaired.
	repairing doubt = "repairing"
)

func (d *database) doubtPath() string { return filepath.Join(d.dir, "doubt") }

// setDoubt is durable on return.
func (d *database) setDoubt(why doubt) error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return replaceFile(d.doubtPath(), []byte(string(why)+"\n"))
}

// clearDoubt is durable on return.
func (d *database) clearDoubt() error { return removeFile(d.doubtPath()) }

func (d *database) doubt() (doubt, error) {
	text, err := os.ReadFile(d.doubtPath())
	if errors.Is(err, fs.ErrNotExist) {
		return noDoubt, nil
	}
	if err != nil {
		return noDoubt, fmt.Errorf("read why the file may differ from the log: %w", err)
	}
	switch why := doubt(strings.TrimSpace(string(text))); why {
	case reigned, repairing:
		return why, nil
	default:
		return noDoubt, fmt.Errorf("read %s: %q is not known", d.doubtPath(), why)
	}
}
