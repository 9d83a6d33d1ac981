package main

import "github.com/alecthomas/kong"

type runCmd struct {
	nodeFlags
}

// Run implements "lsnode run".
func (c *runCmd) Run(a *app, k *kong.Kong) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	return a.run(cfg, a.settings.misspelt(k.Model))
}
