package demo

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
)

// The demonstration ends by itself in under a minute, and shows each thing that
// it promises.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for most of a minute")
	}
	binary, err := testcluster.Build(t.Context(), "../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	err = Run(ctx, Options{Binary: binary, Out: &out, Dir: filepath.Join(t.TempDir(), "demo")})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"n2 and n3 joined", "lag", "SIGKILL", "took over", "not been shipped: ", "back as a follower", "Equal on all three", "0 lost", "All checks passed"} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("it does not say %q", words)
		}
	}
}

func TestScreen(t *testing.T) {
	for _, test := range []struct {
		terminal bool
		want     string
	}{
		{false, "a\nb\nX\nc\n"},
		{true, "a\nb\n\x1b[2A\x1b[JX\na\nb\n\x1b[2A\x1b[Jc\n\x1b[1A\x1b[J"},
	} {
		var out bytes.Buffer
		s := newScreen(&out, test.terminal)
		s.draw([]string{"a", "b"})
		s.say("X")
		s.draw([]string{"c"})
		s.draw(nil)
		got := out.String()
		for _, noise := range []string{"\x1b[1m", "\x1b[0m", "   0.0s  "} {
			got = strings.ReplaceAll(got, noise, "")
		}
		if got != test.want {
			t.Errorf("terminal %v: got %q, want %q", test.terminal, got, test.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[string]string{"0000000000000123": "291", "": "-", "x": "-"} {
		if got := number(in); got != want {
			t.Errorf("number(%q) = %q, want %q", in, got, want)
		}
	}
}
