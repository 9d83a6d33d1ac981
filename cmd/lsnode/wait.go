package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

type waitCmd struct {
	localFlags
	DB       string        `arg:"" name:"db" help:"Name of the database."`
	Bookmark string        `arg:"" help:"The bookmark of a commit, as another node gave it."`
	Timeout  time.Duration `help:"How long to wait." default:"5s"`
}

// Run implements "lsnode wait".
func (c *waitCmd) Run(a *app) error {
	if _, err := walstream.ParseBookmark(c.Bookmark); err != nil {
		return usageError{err}
	}
	client, err := c.reader()
	if err != nil {
		return err
	}
	err = a.ask(&c.localFlags, c.Timeout, func(ctx context.Context) error {
		_, err := client.Wait(ctx, c.DB, c.Bookmark, c.Timeout)
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", c.DB, err)
	}
	return nil
}
