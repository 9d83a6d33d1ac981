package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

type statusCmd struct {
	localFlags
	JSON bool `name:"json" help:"Print JSON, for programs."`
}

// Run implements "lsnode status".
func (c *statusCmd) Run(a *app) error {
	client, err := c.reader()
	if err != nil {
		return err
	}
	var st api.Status
	err = a.ask(&c.localFlags, 5*time.Second, func(ctx context.Context) error {
		st, err = client.Status(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("get status: %w", err)
	}
	if !c.JSON {
		return writeStatus(a.out, st)
	}
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(st)
}
