package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/lsnode/lsnode/cluster/secure"
)

// Config says which node this is and how others reach it.
type Config struct {
	// DataDir holds everything that the node keeps. It is made if it is not
	// there. No default.
	DataDir string
	// Name is a label for people, unique among the members. No default.
	Name string
	// Listen is the address for the other nodes, TCP and UDP; port 0 means a
	// free one. Default "0.0.0.0:7400".
	Listen string
	// Advertise is the address under which the others reach this node. Default:
	// what is listened on, or the host's name in place of an unspecified address.
	Advertise string
	// HTTPAddr is the address of the node's HTTP endpoint, for the others to
	// show. Default none.
	HTTPAddr string
	// Token is the cluster's secret. Default: the one in the data dir; a new
	// cluster makes one.
	Token secure.Token
	// Peers are addresses of nodes that may know where the others are now, asked
	// when a node resumes. Default none.
	Peers []string
	// Timing. Default [TimingLAN].
	Timing Timing
	// Nonvoter keeps the node a read replica. Default false.
	Nonvoter bool
	// Priority breaks ties in a promotion: the higher one first. Default 0.
	Priority int
	// Lease is told until when this node may write as primary of an epoch, on
	// CLOCK_BOOTTIME, each time that this changes, in order: the largest Duration
	// while it is the only voter, also when its reign has ended, since nobody else
	// can be primary then. A change of voters goes on only once it has returned. It
	// is called with locks held and must not block. Default none.
	Lease func(epoch uint64, deadline time.Duration)
	// Version is the program's, for the others to show. Default none.
	Version string
	// Logger gets one line for every change of role, and what goes wrong.
	// Default none.
	Logger *slog.Logger
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "0.0.0.0:7400"
	}
	if c.Timing == (Timing{}) {
		c.Timing = TimingLAN()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.DataDir == "" {
		return errors.New("open cluster: no data dir given")
	}
	if !namePattern.MatchString(c.Name) {
		return fmt.Errorf("open cluster: node name %q: it has 1 to 64 letters, digits, dots, underscores and hyphens", c.Name)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("open cluster: listen address: %w", err)
	}
	if c.Advertise != "" {
		if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
			return fmt.Errorf("open cluster: advertised address: %w", err)
		}
	}
	if err := c.Timing.Validate(); err != nil {
		return fmt.Errorf("open cluster: %w", err)
	}
	if c.Timing.Raft <= 0 {
		return fmt.Errorf("open cluster: Raft timeout %v must be above zero", c.Timing.Raft)
	}
	return nil
}
