package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

func main() {
	if os.Getenv(app.EnvName) != "" {
		os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// bench is one run of the benchmark.
type bench struct {
	dir     string
	binary  string
	apps    app.Launcher
	rounds  int
	runs    int
	seconds time.Duration
	sync    string
	args    []string
	figures []figure
}

func run(ctx context.Context) (err error) {
	b := &bench{}
	parts := flag.String("parts", "lag,rate,failover,crash,switchover", "what to measure")
	out := flag.String("json", "", "also write all figures to this file")
	more := flag.String("args", "", "more flags for every lsnode, separated by blanks")
	flag.IntVar(&b.rounds, "rounds", 5, "interleaved rounds of lag and rate")
	flag.IntVar(&b.runs, "runs", 20, "runs of failover, crash and switchover")
	flag.DurationVar(&b.seconds, "time", 4*time.Second, "length of one measurement")
	flag.StringVar(&b.sync, "sync", "normal", "the application's PRAGMA synchronous: normal or full")
	flag.Parse()
	b.args = strings.Fields(*more)
	if b.dir, err = os.MkdirTemp("", "lsnode-bench-"); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(b.dir)
		} else {
			err = fmt.Errorf("%w; files are in %s", err, b.dir)
		}
	}()
	if b.binary, err = testcluster.Build(ctx, ".", b.dir); err != nil {
		return err
	}
	if b.apps, err = app.Self(); err != nil {
		return err
	}
	known := map[string]func(context.Context) error{
		"lag": b.lag, "rate": b.rate, "failover": b.failover, "crash": b.crash, "switchover": b.switchover,
	}
	for _, part := range strings.Split(*parts, ",") {
		if known[part] == nil {
			return fmt.Errorf("measure %q: there is no such part", part)
		}
		if err := known[part](ctx); err != nil {
			return fmt.Errorf("measure %s: %w", part, err)
		}
	}
	b.print(os.Stdout)
	if *out == "" {
		return nil
	}
	text, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return os.WriteFile(*out, append(text, '\n'), 0o644)
}

// cluster starts a cluster of so many nodes in a directory of its own.
func (b *bench) cluster(ctx context.Context, name string, size int) (*testcluster.Cluster, error) {
	dir := b.dir + "/" + name
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	c, err := testcluster.New(testcluster.Options{Binary: b.binary, Dir: dir, Apps: b.apps, Size: size, Args: b.args})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// note says on stderr how far the benchmark is.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
