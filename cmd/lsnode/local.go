package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"github.com/lsnode/lsnode/node/api"
)

// grace is how much longer than its own timeout a request may take to be
// answered.
const grace = 5 * time.Second

// localFlags say which node a command talks to: the one of a data dir on this
// host, or the one at an address.
type localFlags struct {
	DataDir   string `help:"Data dir of a node on this host: its address and the token are found there." placeholder:"DIR"`
	HTTP      string `name:"http" help:"Address of a node's endpoints. Default: found in --data-dir, else 127.0.0.1:7480." placeholder:"HOST:PORT"`
	Token     string `help:"The cluster's token. Default: found in --data-dir." placeholder:"TOKEN"`
	TokenFile string `help:"Read the cluster's token from this file." placeholder:"FILE"`
}

// reader returns a client that can ask but not change anything.
func (f *localFlags) reader() (*api.Client, error) {
	address, err := f.address()
	if err != nil {
		return nil, err
	}
	return &api.Client{Address: address}, nil
}

// changer returns a client that has the token.
func (f *localFlags) changer() (*api.Client, error) {
	c, err := f.reader()
	if err != nil {
		return nil, err
	}
	if c.Token, err = tokenOf(f.Token, f.TokenFile); err != nil || c.Token != "" {
		return c, err
	}
	if f.DataDir == "" {
		return nil, usagef("this needs the cluster's token: give --data-dir of a node on this host, or --token-file")
	}
	c.Token, err = api.ReadToken(filepath.Join(f.DataDir, api.TokenFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s is the data dir of no node", err, f.DataDir)
	}
	return c, err
}

func (f *localFlags) address() (string, error) {
	if f.DataDir != "" {
		address, err := api.ReadAddress(f.DataDir)
		if err == nil || !errors.Is(err, api.ErrNoAddress) {
			return address, err
		}
		if f.HTTP == "" {
			return "", fmt.Errorf("find the node of data dir %s: %w: is it running? name it by --http HOST:PORT otherwise", f.DataDir, err)
		}
	}
	address, err := api.DialAddress(cmp.Or(f.HTTP, "127.0.0.1:7480"))
	if err != nil {
		return "", usageError{err}
	}
	return address, nil
}

// ask calls do with the time that a request may take, and says what to do about
// an error where it can be known.
func (a *app) ask(f *localFlags, timeout time.Duration, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(a.ctx, timeout+grace)
	defer cancel()
	err := do(ctx)
	answer := new(api.Error)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) && f.DataDir != "":
		return fmt.Errorf("%w: the node of %s is not running", err, f.DataDir)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: no node listens there: give its --data-dir, or its address with --http", err)
	case errors.As(err, &answer) && answer.Code == http.StatusUnauthorized:
		return fmt.Errorf("%w: the token is another cluster's", err)
	}
	return err
}
