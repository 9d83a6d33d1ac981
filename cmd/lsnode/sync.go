package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

type syncCmd struct {
	localFlags
	DB      string        `arg:"" name:"db" help:"Name of the database."`
	Timeout time.Duration `help:"How long to wait." default:"5s"`
}

// Run implements "lsnode sync": the bookmark goes to stdout alone.
func (c *syncCmd) Run(a *app) error {
	client, err := c.reader()
	if err != nil {
		return err
	}
	var synced api.Synced
	err = a.ask(&c.localFlags, c.Timeout, func(ctx context.Context) (err error) {
		synced, err = client.Sync(ctx, c.DB, c.Timeout)
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, synced.Bookmark)
	return err
}
