package identity_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/cluster/identity"
)

func load(t *testing.T, dir string) *identity.Identity {
	t.Helper()
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestIdentityStays(t *testing.T) {
	dir := t.TempDir()
	id := load(t, dir)
	if !identity.ValidID(id.Node()) || id.Cluster() != "" {
		t.Errorf("new: %q, %q", id.Node(), id.Cluster())
	}
	cluster := identity.NewID()
	for range 2 {
		if err := id.SetCluster(cluster); err != nil {
			t.Fatal(err)
		}
	}
	if err := id.SetCluster(identity.NewID()); !errors.Is(err, identity.ErrOtherCluster) {
		t.Errorf("another cluster: %v", err)
	}
	if err := id.SetCluster("x"); err == nil {
		t.Error("set to no ID")
	}
	again := load(t, dir)
	if again.Node() != id.Node() || again.Cluster() != cluster {
		t.Errorf("read back: %q, %q", again.Node(), again.Cluster())
	}
	if load(t, t.TempDir()).Node() == id.Node() {
		t.Error("two data dirs are one node")
	}
}

func TestIdentityRefused(t *testing.T) {
	for what, text := range map[string]string{
		"empty": "", "cut": `{"version":1,`, "no ID": `{"version":1}`,
		"newer":         `{"version":2,"node":"` + identity.NewID() + `"}`,
		"unknown field": `{"version":1,"node":"` + identity.NewID() + `","x":1}`,
		"bad cluster":   `{"version":1,"node":"` + identity.NewID() + `","cluster":"../.."}`,
		"huge":          strings.Repeat(" ", 1<<20),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "identity.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Load(dir); err == nil {
			t.Errorf("%s: accepted", what)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("%s: the file was changed", what)
		}
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	lock, err := identity.Acquire(dir, "lsnode n1\non this port")
	if err != nil {
		t.Fatal(err)
	}
	_, err = identity.Acquire(dir, "lsnode n2")
	if !errors.Is(err, identity.ErrLocked) || !strings.Contains(err.Error(), "lsnode n1 on this port") {
		t.Errorf("second: %v", err)
	}
	// Another process sees it too.
	if flock, err := exec.LookPath("flock"); err == nil {
		if err := exec.Command(flock, "-n", filepath.Join(dir, "lock"), "true").Run(); err == nil {
			t.Error("another process got the lock")
		}
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
	lock, err = identity.Acquire(dir, "lsnode n2")
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}
