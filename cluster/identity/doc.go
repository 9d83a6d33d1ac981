// Package identity keeps what makes a data dir one node: the lock that keeps a
// second process out, and the file with the node's random ID and the ID of the
// cluster that it belongs to.
//
//	DATA-DIR/lock           held by flock for as long as the process lives; its content is for people
//	DATA-DIR/identity.json  {"version":1,"node":"…","cluster":"…","created":"…"}
//
// The invariants: a node ID is made once, with the data dir, and never changes;
// it is durable before anyone else can learn of it; the cluster ID is written
// once, and a data dir never changes over to another cluster. A data dir that
// was lost is a new node, whatever name it takes.
//
// It does not know what a cluster is: who is a member is the Raft state's word.
package identity
