// Package sim tries the logic of elections, of the sync barrier and of changes of
// the voters (the pure packages state, lease and promote, with a small model of
// Raft, log and acknowledgement around them) against an adversary, in its tests:
// messages are lost, delayed, reordered and duplicated, nodes crash and lose what
// was not synced, clocks run at different rates, elections are forced at any time,
// the old leader hears late, and who asks for a change of voters goes away before
// it is made. Everything follows from a seed.
//
//	event queue (true time) ──▶ node: Raft, Voter, Holder, log ──▶ messages ──▶ event queue
//	                                   │
//	                            committed entries ──▶ state.Apply
//
// After every event it checks that no two nodes may write at once (an application
// goes on until its lease ends although lsnode has died), that Raft commits one
// entry at one index, that no epoch has two primaries, and that a new primary has
// every position that a sync could have answered. Each rule that the logic rests
// on can be taken out, as a field of rules, and a test for each shows that the
// simulation then finds a violation, for some of them only in the long selection
// (LSNODE_LONG=1), which tries more than a hundred thousand schedules.
//
// That a sync counts only positions of the current epoch, and that only positions
// on the history's line compete, keep Raft's figure 8 away each by itself; it
// comes when both are taken out.
//
// What it leaves out: Raft's snapshots, several databases, fences that fail, and
// everything that package cluster's own tests try with real sockets.
package sim
