// Package node is one node's life: it opens what the data dir holds, takes part
// in the cluster, and moves its databases through the roles that elections give
// it.
//
//	            primary                                            followers
//	SQLite -wal ── capture ──▶ Txn ─┬▶ log ─▶ NATS ─────▶ Txn ──▶ log ──▶ apply ──▶ SQLite -wal
//	                                └▶ pull ◀──────────── gaps, large ones, repair
//
// A role is a function on the stack: [cluster.Cluster.Run] calls reign or
// follow of the roles type, which return when the role ends, with everything
// undone that the role had set up. A database is touched by one role at a time.
//
// What a node knows of a database is durable in this order:
//
//   - its log (DATA-DIR/log) says where the node stands: its position;
//   - the copy's WAL is ahead of nothing that the log lacks: on a follower a
//     transaction is logged before it is applied, on the primary the
//     application's file may hold commits that were not captured yet;
//   - the table of page checksums and the applied position (DATA-DIR/state/NAME)
//     trail the log and are brought up to it when the database is opened;
//   - the file "doubt" in the same place says that the file may hold what the log
//     does not: because the application could write ("reigned"; made before the
//     fence is lifted), or because a repair was cut off ("repairing"). It is
//     removed after file and log were made equal.
//
// Commits that this node has and the cluster has not are kept under
// DATA-DIR/quarantine as a plain copy of the database before it is repaired.
//
// A guard (package guard) runs beside the node. A database is put on its list
// before the fence is lifted, and taken off it once that is up again; after the
// guard has begun to fence in an epoch this node lifts no fence in it any more.
// An application may run under the node (package child).
//
// A database file, its -wal and its -shm are opened by [sqlitedb.DB] only.
package node
