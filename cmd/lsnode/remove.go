package main

import (
	"context"
	"fmt"
	"time"
)

type removeCmd struct {
	localFlags
	Node    string        `arg:"" help:"Name or ID of the node, which must be dead."`
	Timeout time.Duration `help:"How long it may take." default:"30s"`
}

// Run implements "lsnode remove".
func (c *removeCmd) Run(a *app) error {
	client, err := c.changer()
	if err != nil {
		return err
	}
	err = a.ask(&c.localFlags, c.Timeout, func(ctx context.Context) error {
		return client.Remove(ctx, c.Node, c.Timeout)
	})
	if err != nil {
		return fmt.Errorf("remove node %s: %w", c.Node, err)
	}
	fmt.Fprintf(a.err, "%s is no member any more. Its copies stay read-only until \"lsnode release PATH\" on its host.\n", c.Node)
	return nil
}
