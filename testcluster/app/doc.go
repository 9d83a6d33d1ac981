// Package app holds the applications that lsnode is tested with: ordinary users
// of an ordinary SQLite file that know nothing of lsnode. Each one runs as a
// process of its own, since what is to be shown is shown only there: locks,
// mapped memory and SQLite's caches behave differently inside one process.
//
//	test, demo, bench ── Launcher.Start ──▶ the same binary, calling Main
//	      ▲                                        │
//	      └───── one JSON [Report] a line ◀────────┘  stdout
//
// The binary that starts them is the one that they run in: a test binary (its
// TestMain looks at [EnvName]), `lsnode demo-app`, or the benchmark.
//
//	bank      transfers money; the sum never changes; registers each commit
//	mixed     the same, mixed with updates, deletes, schema changes, VACUUM, large blobs
//	reader    checks the sum and that nothing goes back, through one of four clients
//	hold      holds one read transaction open and checks that it sees the same for ever
//	prober    tries to write, all the time, and notes when a node took it
//	checkpoint runs the application's own checkpoints and times them
//	digest    reads a database raw and by content, and prints what it is
//	stamp     writes rows with the machine's clock at a rate; watch reads them
//
// All run until SIGTERM, or until their work is done, print a last report, and
// exit with 0, or with 1 if what they check did not hold.
package app
