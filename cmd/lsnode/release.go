package main

import (
	"errors"
	"fmt"

	"github.com/lsnode/lsnode/walstream/apply"
)

type releaseCmd struct {
	Path []string `arg:"" help:"The file, or several."`
}

// Run implements "lsnode release". A file that can't be released keeps none of
// the others from it.
func (c *releaseCmd) Run(a *app) error {
	var errs []error
	for _, path := range c.Path {
		if err := apply.Release(a.ctx, path); err != nil {
			errs = append(errs, err) // it says "release PATH"
			continue
		}
		fmt.Fprintf(a.err, "%s is an ordinary database: connections opened from now on can write.\n", path)
	}
	return errors.Join(errs...)
}
