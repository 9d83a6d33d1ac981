package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/mattn/go-sqlite3"
)

type versionCmd struct{}

// Run implements "lsnode version".
func (versionCmd) Run(a *app) error {
	sqlite, _, _ := sqlite3.Version()
	_, err := fmt.Fprintf(a.out, "lsnode %s\nSQLite %s, %s, %s/%s\n", version(), sqlite, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// version is what the Go command has written into the program: a release's tag,
// or the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
