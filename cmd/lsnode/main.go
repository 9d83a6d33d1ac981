package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/lsnode/lsnode/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on a signal does what it does by default: end the process
	a := &app{ctx: ctx, in: os.Stdin, out: os.Stdout, err: os.Stderr, settings: &settings{environ: os.Environ()}, runNode: node.Run}
	os.Exit(a.main(os.Args[1:]))
}
