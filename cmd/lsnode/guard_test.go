package main

import (
	"slices"
	"testing"
)

// A node starts its guard with its own data dir and log level, from the program
// file that it runs itself.
func TestNodeIsGuarded(t *testing.T) {
	got := call(t, nil, nil, "run", "--name", "n1", "--data-dir", "d", "--log-level", "warn")
	if got.config == nil {
		t.Fatalf("exit status %d: %s", got.code, got.err)
	}
	want := []string{"/proc/self/exe", "guard", "--data-dir", "d", "--log-level", "warn"}
	if !slices.Equal(got.config.Guard, want) {
		t.Errorf("guard is %q, want %q", got.config.Guard, want)
	}
}
