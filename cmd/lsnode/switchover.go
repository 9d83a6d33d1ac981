package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

type switchoverCmd struct {
	localFlags
	To      string        `help:"Node to hand over to. Default: the best placed one." placeholder:"NODE"`
	Timeout time.Duration `help:"How long it may take." default:"30s"`
}

// Run implements "lsnode switchover": it prints the new primary's name.
func (c *switchoverCmd) Run(a *app) error {
	client, err := c.changer()
	if err != nil {
		return err
	}
	var switched api.Switched
	err = a.ask(&c.localFlags, c.Timeout, func(ctx context.Context) error {
		switched, err = client.Switchover(ctx, c.To, c.Timeout)
		return err
	})
	if err != nil {
		return fmt.Errorf("switch over: %w", err)
	}
	fmt.Fprintln(a.out, switched.Primary)
	return nil
}
