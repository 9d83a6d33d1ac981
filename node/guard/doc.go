// Package guard is the small process that outlives its node: it closes the
// databases to writers when the node can't do it any more.
//
//	node ── Client ──▶ page (memfd): lease's end, epoch, databases open to writers
//	  │                  │   ▲
//	  │ pidfd: death     ▼   │ "fenced by the guard: epoch"
//	  └──────────────▶ guard ── mark, fsync ──▶ databases
//	                     └───── "fenced" ─────▶ voters, who then need not wait
//
// The node dies, or its lease runs out while a database is still open: then the
// guard fences what is open and tells the voters. While all is well it does
// nothing; the node itself opens and fences its databases.
//
// Invariants:
//   - A database is in the page before its fence is lifted, and until it is up
//     again, durable. What is not in the page the guard never touches.
//   - The databases of an only voter, whose lease ends never, are never fenced.
//   - Before the guard fences it writes the epoch into the page, where it stays.
//     The node looks there while it holds a database's write lock and is about
//     to lift the fence, and lifts none in that epoch or below. So the guard's
//     word stands, whatever a node does that was stopped between any two
//     instructions and goes on.
//   - A node that holds a write lock past its lease's end is killed by the guard
//     if it is stopped, or if it does not come to its senses within the lease's
//     length: not before it was seen that it is this node that holds the lock.
//
// The page is memory that both processes share; a description of the databases
// lies beside it in the same file. The node alone writes both, in two slots that
// take turns, so that its death at any instant leaves a whole one. The guard has
// three words of its own. They are the same program file, so that the layout
// needs a version only to turn a mistake into an error.
//
// The guard has a session of its own and, where the system lets it, a cgroup of
// its own. Where both processes are killed together (a container), the voters'
// wait for the end of their promises is what protects. It never waits for
// whoever reads its log.
//
// What it does not do: decide who is primary; open a database; keep a node alive.
package guard
