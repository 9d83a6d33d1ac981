package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/lease"
)

func open(t *testing.T, dir string) *voter {
	t.Helper()
	v, err := openVoter(dir, lease.Timing{Renewal: 20 * time.Millisecond, Lease: 200 * time.Millisecond, Margin: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestPromiseSurvivesRestart: it is on disk before the answer.
func TestPromiseSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	v := open(t, dir)
	if err := v.ask(t.Context(), 7, 0, false); err != nil {
		t.Fatal(err)
	}
	v = open(t, dir)
	if got := v.promised(); got != 7 {
		t.Errorf("promised %d", got)
	}
	if err := v.ask(t.Context(), 6, 5, false); !errors.Is(err, errPromised) {
		t.Errorf("a lower epoch: %v", err)
	}
	if v.renew(6, time.Millisecond) {
		t.Error("a lower epoch got a promise")
	}
}

func TestPromiseThatCantBeKeptIsNotGiven(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	v := open(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := v.ask(t.Context(), 7, 0, false); err == nil {
		t.Error("answered without a durable promise")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := v.ask(t.Context(), 7, 0, false); err != nil {
		t.Errorf("asked again: %v", err)
	}
	if got := open(t, dir).promised(); got != 7 {
		t.Errorf("promised %d", got)
	}
}

// TestRequestIsHeld: until the promise ends, or what it was given for is fenced.
func TestRequestIsHeld(t *testing.T) {
	v := open(t, t.TempDir())
	v.renew(1, 200*time.Millisecond)
	began := now()
	if err := v.ask(t.Context(), 2, 1, false); err != nil {
		t.Fatal(err)
	}
	if waited := now() - began; waited < 190*time.Millisecond {
		t.Errorf("answered after %v", waited)
	}

	v.reign(2)
	answered := make(chan error, 1)
	go func() { answered <- v.ask(t.Context(), 3, 2, false) }()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := v.ask(ctx, 3, 2, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a primary has answered: %v", err)
	}
	v.fenced(2)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestBrokenPromiseFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, content := range []string{"", "{", `{"version":2,"epoch":1}`, `{"version":1,"epoch":-1}`} {
		if err := os.WriteFile(filepath.Join(dir, promiseFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := openVoter(dir, lease.Timing{}); err == nil {
			t.Errorf("%q was read as %d", content, v.promised())
		}
	}
}
