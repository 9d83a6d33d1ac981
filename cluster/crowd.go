package cluster

type crowd struct{}

func (c *Cluster) openCrowd() (*crowd, error)     { return &crowd{}, nil }
func (w *crowd) announce(role Role, epoch uint64) {}
func (w *crowd) address(id string) string         { return "" }
func (w *crowd) Close() error                     { return nil }
func (c *Cluster) Alive(id string) bool           { return false }
