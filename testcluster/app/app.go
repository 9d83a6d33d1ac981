package app

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Main runs the application that args[0] names with the flags after it and
// returns the exit status of the process.
func Main(args []string, out, errs io.Writer) int {
	apps := map[string]func(context.Context, *run) error{
		"bank": runBank, "mixed": runMixed, "reader": runReader, "hold": runHold, "prober": runProber,
		"checkpoint": runCheckpoint, "digest": runDigest, "stamp": runStamp, "watch": runWatch,
	}
	if len(args) == 0 || apps[args[0]] == nil {
		fmt.Fprintln(errs, "name one of the test applications")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	r := &run{out: json.NewEncoder(out), report: Report{App: args[0]}}
	r.flags(args[0])
	if err := r.set.Parse(args[1:]); err != nil {
		return 2
	}
	// The first report says that signals are heard from now on.
	err := r.out.Encode(r.report)
	if err == nil {
		err = apps[args[0]](ctx, r)
	}
	if err != nil {
		r.report.Error = err.Error()
		fmt.Fprintf(errs, "%s: %v\n", args[0], err)
	}
	r.report.Done = true
	if r.out.Encode(r.report) != nil || err != nil {
		return 1
	}
	return 0
}

// run is one application's run: its flags and its report. Only the
// application's own goroutine uses it.
type run struct {
	set    *flag.FlagSet
	out    *json.Encoder
	report Report
	told   time.Time // of the last report

	db        string
	worker    int64
	seed      uint64
	oracle    string
	rate      float64
	count     int64
	sync      string
	autockpt  int
	reopen    bool
	blob      int64
	client    string
	forward   bool
	fresh     int64
	limit     time.Duration
	mode      string
	intervals string
	every     time.Duration
	maxSize   int64
	stopAfter time.Duration
	raw       bool
}

func (r *run) flags(name string) {
	s := flag.NewFlagSet(name, flag.ContinueOnError)
	s.SetOutput(os.Stderr)
	s.StringVar(&r.db, "db", "", "the database file")
	s.Int64Var(&r.worker, "worker", 1, "number of this writer")
	s.Uint64Var(&r.seed, "seed", 1, "seed of all that is random")
	s.StringVar(&r.oracle, "oracle", "", "file to note each commit in")
	s.Float64Var(&r.rate, "rate", 0, "commits or reads a second; 0: as fast as it goes")
	s.Int64Var(&r.count, "count", 0, "end after so many; 0: at SIGTERM")
	s.StringVar(&r.sync, "sync", "normal", "PRAGMA synchronous")
	s.IntVar(&r.autockpt, "autocheckpoint", 1000, "PRAGMA wal_autocheckpoint")
	s.BoolVar(&r.reopen, "reopen", false, "where the database is read-only or missing: open again until it is not")
	s.Int64Var(&r.blob, "blob", 0, "mixed: bytes of the large blob")
	s.StringVar(&r.client, "client", "go", "reader: go, shell, python")
	s.BoolVar(&r.forward, "forward", true, "reader: what was seen must never go back")
	s.Int64Var(&r.fresh, "fresh", 50, "reader: a new connection after so many reads; 0: never")
	s.DurationVar(&r.limit, "limit", 100*time.Millisecond, "count what took longer")
	s.StringVar(&r.mode, "mode", "all", "checkpoint: passive, full, restart, truncate, all")
	s.StringVar(&r.intervals, "intervals", "", "prober: file for the times at which it could write")
	s.DurationVar(&r.every, "every", 100*time.Millisecond, "time between reports")
	s.Int64Var(&r.maxSize, "grow-to", 0, "mixed: grow the database to so many bytes first")
	s.BoolVar(&r.raw, "raw", true, "digest: also the checksum of the raw pages")
	s.DurationVar(&r.stopAfter, "for", 0, "end after this time; 0: at SIGTERM")
	r.set = s
}

// tell prints the report if it is time to.
func (r *run) tell() error {
	if time.Since(r.told) < r.every {
		return nil
	}
	r.told = time.Now()
	return r.out.Encode(r.report)
}

// pace waits until the n-th step of a run at the wanted rate is due.
func (r *run) pace(ctx context.Context, start time.Time, n int64) {
	if r.rate <= 0 {
		return
	}
	wait(ctx, time.Until(start.Add(time.Duration(float64(n)/r.rate*float64(time.Second)))))
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
