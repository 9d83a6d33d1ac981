package main

import (
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/lsnode/lsnode/node/guard"
)

// guardCmd is the process that a running node starts beside itself. Whoever
// looks at the list of processes sees by its flag whose it is.
type guardCmd struct {
	DataDir string `help:"The node's data dir." placeholder:"DIR"`
}

// Run implements "lsnode guard".
func (c *guardCmd) Run(a *app) error {
	// It ends when its node has, and nothing is left to be done: a signal that is
	// meant for all processes of a service, or of a terminal, is not for it.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	out := guard.Detach(a.err)
	defer out.Close()
	log := (&app{err: out, level: a.level}).logger().With(slog.Int("guard_pid", os.Getpid()))
	err := guard.Watch(c.DataDir, log)
	if errors.Is(err, guard.ErrNotStarted) {
		return usageError{err}
	}
	return err
}

// guardCommand is how a node starts its guard: from the program file that it
// runs itself, also when another one is at its path by now.
func guardCommand(dataDir, level string) []string {
	return []string{"/proc/self/exe", "guard", "--data-dir", dataDir, "--log-level", level}
}
