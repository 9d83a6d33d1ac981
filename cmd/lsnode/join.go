package main

import "github.com/alecthomas/kong"

type joinCmd struct {
	Peers []string `help:"Nodes of the cluster; one that answers is enough." placeholder:"HOST:PORT"`
	nodeFlags
	Replace bool `help:"Where a copy is to be and a file is that is not this cluster's copy, put that file aside."`
}

// Run implements "lsnode join".
func (c *joinCmd) Run(a *app, k *kong.Kong) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	if len(c.Peers) == 0 {
		return usagef("join a cluster: no node of it is named: give --peers HOST:PORT, with the address of any of its nodes")
	}
	cfg.Peers, cfg.Replace = c.Peers, c.Replace
	return a.run(cfg, a.settings.misspelt(k.Model))
}
