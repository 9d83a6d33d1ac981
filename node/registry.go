package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/lsnode/lsnode/walstream"
)

// registryVersion is the version of DATA-DIR/databases.json.
const registryVersion = 1

// registry knows which databases this node has and where their files are. The
// paths of copies that this node placed itself are remembered, so that a
// restart with other flags finds them again. It is safe for concurrent use.
type registry struct {
	file    string                   // DATA-DIR/databases.json
	copy    func(name string) string // where the copy of a database without a path of its own goes
	watched string                   // the directory whose files are taken, or empty
	flags   map[string]string        // name to path, from --db; immutable

	mu      sync.Mutex
	placed  map[string]string // guarded by mu; name to path, as stored
	found   map[string]string // guarded by mu; name to path, from the watched directory
	refused map[string]string // guarded by mu; name to reason, of what was found there
	fresh   chan struct{}     // guarded by mu; closed and replaced when something new is found
}

// registryFile is the stored form.
type registryFile struct {
	Version int               `json:"version"`
	Paths   map[string]string `json:"paths"`
}

func openRegistry(cfg Config) (*registry, error) {
	r := &registry{
		file:    filepath.Join(cfg.DataDir, "databases.json"),
		copy:    cfg.CopyPath,
		watched: cfg.DBDir,
		flags:   map[string]string{},
		found:   map[string]string{},
		refused: map[string]string{},
		fresh:   make(chan struct{}),
	}
	for _, d := range cfg.Databases {
		r.flags[d.Name] = d.Path
	}
	stored := registryFile{Version: registryVersion}
	if err := loadJSON(r.file, &stored); err != nil {
		return nil, err
	}
	if stored.Version != registryVersion {
		return nil, fmt.Errorf("read %s: version %d is not known to this lsnode, which knows %d", r.file, stored.Version, registryVersion)
	}
	r.placed = stored.Paths
	if r.placed == nil {
		r.placed = map[string]string{}
	}
	return r, nil
}

// local returns the databases that this node's operator named, by flag or by
// putting a file into the watched directory.
func (r *registry) local() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]string{}
	for name, path := range r.found {
		all[name] = path
	}
	for name, path := range r.flags {
		all[name] = path
	}
	return all
}

// path returns where the copy of a database is or belongs, and remembers a
// place that it chose itself, durably.
func (r *registry) path(name string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, known := range []map[string]string{r.flags, r.found, r.placed} {
		if path, ok := known[name]; ok {
			return path, nil
		}
	}
	path := r.copy(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make directory for copies: %w", err)
	}
	r.placed[name] = path
	if err := storeJSON(r.file, registryFile{Version: registryVersion, Paths: r.placed}); err != nil {
		delete(r.placed, name)
		return "", err
	}
	return path, nil
}

// changed returns a channel that is closed when the next database is found.
func (r *registry) changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fresh
}

// scan looks at the watched directory again.
func (r *registry) scan() error {
	if r.watched == "" {
		return nil
	}
	entries, err := os.ReadDir(r.watched)
	if err != nil {
		return fmt.Errorf("list databases: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := false
	for _, e := range entries {
		name, ok := databaseFile(e)
		if !ok {
			continue
		}
		path := filepath.Join(r.watched, e.Name())
		if have, ok := r.found[name]; ok {
			if have != path {
				r.refused[name] = fmt.Sprintf("%s and %s would both be called %q: rename one", have, path, name)
			}
			continue
		}
		if !walstream.ValidName(name) {
			r.refused[e.Name()] = fmt.Sprintf("take %s: %q can't be a database's name: use letters, digits, dots, hyphens and underscores, 64 at most", path, name)
			continue
		}
		if flag, ok := r.flags[name]; ok && flag != path {
			r.refused[name] = fmt.Sprintf("%s and %s would both be called %q: rename one", flag, path, name)
			continue
		}
		r.found[name], fresh = path, true
	}
	if fresh {
		close(r.fresh)
		r.fresh = make(chan struct{})
	}
	return nil
}

// refusals returns what the watched directory holds and this node can't take,
// with the reasons.
func (r *registry) refusals() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]string, len(r.refused))
	for name, why := range r.refused {
		all[name] = why
	}
	return all
}

// databaseFile tells whether a directory entry is a database that is taken, and
// the name it gets.
func databaseFile(e os.DirEntry) (string, bool) {
	ext := filepath.Ext(e.Name())
	if !e.Type().IsRegular() || !slices.Contains([]string{".db", ".sqlite", ".sqlite3"}, ext) || strings.HasPrefix(e.Name(), ".") {
		return "", false
	}
	return strings.TrimSuffix(e.Name(), ext), true
}
