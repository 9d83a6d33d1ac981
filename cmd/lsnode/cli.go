package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/lsnode/lsnode/node"
	"github.com/lsnode/lsnode/node/child"
)

// cli is the whole command line.
type cli struct {
	Help     helpFlag `short:"h" help:"Show what a command does and takes, and end."`
	Config   string   `help:"Read settings from this YAML file; its keys are the flags' names." placeholder:"FILE"`
	LogLevel string   `help:"Log from this level on: ${enum}." enum:"debug,info,warn,error" default:"info"`

	Run        runCmd        `cmd:"" help:"Run a node. With an empty data dir it starts a new cluster of one; with a used one it resumes."`
	Join       joinCmd       `cmd:"" help:"Join a cluster through any of its nodes, and run."`
	Status     statusCmd     `cmd:"" help:"Show what a node knows: roles, positions, lag."`
	Sync       syncCmd       `cmd:"" help:"Wait until all that was committed is durable on a majority, and show the bookmark."`
	Wait       waitCmd       `cmd:"" help:"Wait until a node shows the commit of a bookmark."`
	Switchover switchoverCmd `cmd:"" help:"Hand the primary's role to another node. No commit is lost."`
	Leave      leaveCmd      `cmd:"" help:"Take a node out of its cluster, and stop it."`
	Remove     removeCmd     `cmd:"" help:"Take another node, which is dead, out of the cluster."`
	Release    releaseCmd    `cmd:"" help:"Make a follower's copy an ordinary database again. No node may be running on it."`
	Verify     verifyCmd     `cmd:"" help:"Compare what all nodes have of a database, at one position."`
	Quarantine quarantineCmd `cmd:"" help:"Commits that this host's node had and the cluster has not: list, show, export, drop."`
	Recover    recoverCmd    `cmd:"" help:"Let this host's node go on alone, where most voters are lost for good. It must not be running."`
	Demo       demoCmd       `cmd:"" help:"Run three nodes on this machine: replicate, kill the primary, fail over, compare. Ends by itself."`
	Guard      guardCmd      `cmd:"" hidden:"" help:"The process beside a running node that closes its databases to writers if the node can't."`
	DemoApp    demoAppCmd    `cmd:"" hidden:"" help:"The application and the readers of the demo." passthrough:""`
	Version    versionCmd    `cmd:"" help:"Show the version."`
}

// app is what commands act with and on.
type app struct {
	ctx      context.Context                          // ends with the first SIGINT or SIGTERM
	in       io.Reader                                // answers to questions; nil: nobody is there
	out, err io.Writer                                // results; messages
	settings *settings                                // where flags that are not given come from
	runNode  func(context.Context, node.Config) error // runs a node until the context ends
	level    string                                   // of the log; known once the command line is parsed
}

// usageError is an error of whoever called us: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// main does what args say and returns the exit status.
func (a *app) main(args []string) int {
	command, err := a.execute(args)
	if err == nil || errors.Is(err, errHelpShown) {
		return 0
	}
	fmt.Fprintf(a.err, "lsnode: %v\n", err)
	var (
		usage usageError
		ended *child.Ended
	)
	if errors.As(err, &ended) {
		return ended.Status
	}
	if errors.As(err, &usage) || errors.Is(err, node.ErrConfig) {
		fmt.Fprintf(a.err, "%q says what there is to give.\n", strings.TrimSpace("lsnode "+command)+" --help")
		return 2
	}
	return 1
}

// execute returns, beside the error, the command that was recognised.
func (a *app) execute(args []string) (command string, err error) {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("lsnode"),
		kong.Description("Replicates ordinary SQLite files between hosts: one primary, live copies, automatic failover."),
		kong.NoDefaultHelp(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(describe),
		kong.Writers(a.out, a.err),
		kong.Resolvers(a.settings),
		kong.Bind(a),
	)
	if err != nil {
		return "", fmt.Errorf("build command line: %w", err)
	}
	if err := a.settings.load(args, parser.Model); err != nil {
		return "", usageError{err}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		var p *kong.ParseError
		if errors.As(err, &p) && p.Context != nil {
			command = commandOf(p.Context)
		}
		return command, usageError{err}
	}
	a.level = c.LogLevel
	return commandOf(parsed), parsed.Run()
}

// commandOf returns the names of the commands recognised so far.
func commandOf(ctx *kong.Context) string {
	var names []string
	for _, p := range ctx.Path {
		if p.Command != nil {
			names = append(names, p.Command.Name)
		}
	}
	return strings.Join(names, " ")
}

// describe adds the default and the name in the environment to a flag's help.
func describe(v *kong.Value) string {
	if v.Flag == nil || !configurable(v.Flag) {
		return v.Help
	}
	help := v.Help
	if v.HasDefault && v.Flag.PlaceHolder != "" { // the placeholder stands where the default would
		help += " Default: " + v.Default + "."
	}
	return help + " ($" + envName(v.Flag.Name) + ")"
}

// errHelpShown ends a call that asked for help.
var errHelpShown = errors.New("help shown")

type helpFlag bool

// BeforeReset shows the help before anything else is looked at.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errHelpShown
}
