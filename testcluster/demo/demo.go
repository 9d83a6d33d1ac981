package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// Options say how the demonstration is run.
type Options struct {
	Binary   string    // the lsnode program; required
	Out      io.Writer // what is shown; required
	Terminal bool      // Out is a terminal: a table is kept up to date there; false: plain lines
	Keep     bool      // keep the files, also after success; false
	Dir      string    // where files go, a directory that is not there yet; a temporary one
}

// limit is how long the whole may take.
const limit = 58 * time.Second

// App runs one of the demonstration's applications, in a process of its own.
// The error says what did not hold; it was printed to stderr already.
func App(args []string) error {
	if status := app.Main(args, os.Stdout, os.Stderr); status != 0 {
		return fmt.Errorf("application ended with status %d", status)
	}
	return nil
}

// Run runs the demonstration and returns when all its processes are gone. The
// error says which check failed. Files stay if Keep says so or it failed.
func Run(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "lsnode-demo-"); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	} else if err := os.Mkdir(o.Dir, 0o755); err != nil {
		return fmt.Errorf("make directory for the demonstration: %w", err)
	}
	cluster, err := testcluster.New(testcluster.Options{
		Binary: o.Binary, Dir: o.Dir, Apps: app.Launcher{Path: o.Binary, Args: []string{"demo-app"}},
	})
	if err != nil {
		return err
	}
	s := &story{Cluster: cluster, screen: newScreen(o.Out, o.Terminal), writers: map[string]*app.Child{}, readers: map[string]*app.Child{}}
	err = s.tell(ctx)
	err = errors.Join(err, s.end())
	switch {
	case err != nil:
		s.screen.say("FAILED. Logs and databases are in %s", o.Dir)
	case o.Keep:
		s.screen.say("Files are kept in %s", o.Dir)
	default:
		err = os.RemoveAll(o.Dir)
	}
	return err
}
