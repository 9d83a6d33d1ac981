package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroup is the guard's own, beside that of the node, so that what kills,
// freezes or starves the node's leaves the guard alone. It takes a right that
// mostly only root has.
type cgroup struct {
	dir string // "" if there is none
	err error  // why
}

// cgroupPrefix begins the names of guards' cgroups.
const cgroupPrefix = "lsnode-guard-"

// newCgroup makes one, and removes those that nodes have left that were killed.
func newCgroup() *cgroup {
	own, root, err := ownCgroup()
	if err != nil {
		return &cgroup{err: err}
	}
	parent := own
	if own != root {
		parent = filepath.Dir(own)
	}
	if old, err := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*")); err == nil {
		for _, dir := range old {
			_ = os.Remove(dir) // those that are in use stay
		}
	}
	dir := filepath.Join(parent, cgroupPrefix+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return &cgroup{err: err}
	}
	return &cgroup{dir: dir}
}

// ownCgroup returns this process's cgroup of version 2, and the root of all.
func ownCgroup() (own, root string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	for _, line := range splitLines(text) {
		fields, after, ok := strings.Cut(line, " - ")
		if place := strings.Fields(fields); ok && strings.HasPrefix(after, "cgroup2 ") && len(place) > 4 {
			root = place[4]
			break
		}
	}
	if root == "" {
		return "", "", errors.New("there is no cgroup file system of version 2")
	}
	if text, err = os.ReadFile("/proc/self/cgroup"); err != nil {
		return "", "", err
	}
	for _, line := range splitLines(text) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return filepath.Join(root, path), root, nil
		}
	}
	return "", "", errors.New("this process has no cgroup of version 2")
}

// add puts a process into it.
func (g *cgroup) add(pid int) error {
	if g.dir == "" {
		return g.err
	}
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("put guard into cgroup: %w", err)
	}
	return nil
}

// remove takes it away once nobody is in it.
func (g *cgroup) remove() {
	if g.dir != "" {
		_ = os.Remove(g.dir) // a guard that stays keeps it; the next node's start removes it
	}
}
