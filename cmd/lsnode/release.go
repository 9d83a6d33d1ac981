package main

import (
	"fmt"

	"github.com/lsnode/lsnode/walstream/apply"
)

type releaseCmd struct {
	Path []string `arg:"" help:"The file, or several."`
}

// Run implements "lsnode release".
func (c *releaseCmd) Run(a *app) error {
	for _, path := range c.Path {
		if err := apply.Release(a.ctx, path); err != nil {
			return fmt.Errorf("release %s: %w", path, err)
		}
		fmt.Fprintf(a.err, "%s is an ordinary database: connections opened from now on can write.\n", path)
	}
	return nil
}
