package testcluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Guards returns the processes that guard this node: one while it runs, and for
// a while one for each life that was ended by force.
func (n *Node) Guards() []int {
	var pids []int
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, path := range entries {
		text, err := os.ReadFile(path) // of a process that may be gone
		if err != nil {
			continue
		}
		args := bytes.Split(bytes.TrimRight(text, "\x00"), []byte{0})
		if len(args) < 4 || string(args[1]) != "guard" || !slices.ContainsFunc(args[2:], func(a []byte) bool { return string(a) == n.DataDir }) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Signal sends a signal to the process, as its supervisor would.
func (n *Node) Signal(s syscall.Signal) error { return n.signal(s) }

// SignalGuards sends a signal to the node's guards.
func (n *Node) SignalGuards(s syscall.Signal) error {
	var errs []error
	for _, pid := range n.Guards() {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("signal guard of node %s: %w", n.Name, err))
		}
	}
	return errors.Join(errs...)
}

// KillGuards ends the node's guards (SIGKILL) and returns when they are gone.
// One that runs starts another.
func (n *Node) KillGuards() error {
	pids := n.Guards()
	if err := n.SignalGuards(syscall.SIGKILL); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		now := n.Guards()
		if !slices.ContainsFunc(pids, func(pid int) bool { return slices.Contains(now, pid) }) {
			return nil
		}
	}
	return fmt.Errorf("kill guards of node %s: %v are there still", n.Name, n.Guards())
}
