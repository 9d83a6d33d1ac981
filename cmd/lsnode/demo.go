package main

import (
	"fmt"
	"os"

	"github.com/lsnode/lsnode/testcluster/demo"
)

type demoCmd struct {
	Keep bool   `help:"Leave the nodes' files, and say where they are."`
	Dir  string `help:"Put the nodes' files into this new directory. Default: a temporary one." placeholder:"DIR"`
}

// Run implements "lsnode demo".
func (c *demoCmd) Run(a *app) error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start it three times: %w", err)
	}
	return demo.Run(a.ctx, demo.Options{
		Binary: binary, Out: a.out, Terminal: isTerminal(a.out), Keep: c.Keep, Dir: c.Dir,
	})
}

type demoAppCmd struct {
	Args []string `arg:"" optional:""`
}

// Run implements "lsnode demo-app", which the demo starts.
func (c *demoAppCmd) Run(*app) error { return demo.App(c.Args) }
