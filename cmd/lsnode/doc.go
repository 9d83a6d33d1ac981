// Command lsnode replicates ordinary SQLite files between hosts.
//
//	lsnode run, join        be a node, in the foreground, until told to stop
//	lsnode status, wait     ask a node
//	lsnode switchover,
//	       leave, remove    change the cluster
//	lsnode release          make a follower's copy an ordinary database again
//	lsnode demo             three nodes on this machine; ends by itself
//
// A setting comes, in this order, from its flag, from the environment
// (--data-dir is LSNODE_DATA_DIR), from the file named by --config (key
// data-dir), or is the default. Lists are given by repeating the flag, with
// commas in the environment, as a sequence in the file.
//
// Results go to standard output, messages and the log to standard error. The
// exit status is 0 when it is done, 1 when it failed, 2 when it was asked for
// wrongly. SIGINT and SIGTERM stop a node in good order; a second one at once.
//
// One file holds one command. The package only turns words into calls: what they
// do is in package node and below it.
package main
