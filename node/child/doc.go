// Package child runs the operator's application under a node, with the node's
// life or with that of its role.
//
//	Want(true) ──▶ start ──▶ running ──▶ Want(false), the node's end: SIGTERM, a bounded while, SIGKILL
//	     ▲                      │
//	     └──────────────────────┴──▶ it ends by itself: so does Run, with its status
//
// The command is a shell's, in a process group of its own; signals go to the
// whole group. When the application's first process has ended, what is left of
// its group is ended too before it counts as gone, so that two lives of an
// application never overlap. If the node is killed, the kernel kills the first
// process, and the node's guard the rest of the group.
//
// What it does not do: start an application again that has ended by itself. The
// node ends as well then, in an orderly way: a primary hands over, and the
// application starts where the role is now.
package child
