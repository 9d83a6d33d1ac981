package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

type leaveCmd struct {
	localFlags
	Timeout time.Duration `help:"How long it may take." default:"30s"`
}

// Run implements "lsnode leave".
func (c *leaveCmd) Run(a *app) error {
	client, err := c.changer()
	if err != nil {
		return err
	}
	var st api.Status
	err = a.ask(&c.localFlags, c.Timeout, func(ctx context.Context) error {
		if st, err = client.Status(ctx); err != nil {
			return err
		}
		return client.Leave(ctx, c.Timeout)
	})
	if err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	fmt.Fprintf(a.err, "%s has left the cluster. Its copies stay read-only; to make one an ordinary database again:\n", st.Node)
	for _, db := range st.Databases {
		fmt.Fprintf(a.err, "  lsnode release %s\n", db.Path)
	}
	return nil
}
