// Package sim tries the pure logic of elections (packages state, lease and
// promote) against an adversary, in its tests: nodes whose messages are lost,
// delayed, reordered and duplicated, that crash and lose what was not synced,
// whose clocks run at different rates, and a Raft that makes anyone its leader at
// any time and tells the old one late. Everything follows from a seed.
//
//	event queue (true time) ──▶ node: Voter, Holder, log ──▶ messages ──▶ event queue
//	                                   │
//	                            registry: state.Apply, linearizable, newest term only
//
// After every event it checks that no two nodes may write at once, that no epoch
// has two primaries and reigns are in order, and that a new primary has every
// position that a majority has acknowledged. Each rule that the logic rests on
// can be taken out, as a field of rules, and a test for each shows that the
// simulation then finds a violation.
//
// What it leaves out: changes of the voters, which the protocol allows only
// within a lease, and everything that package cluster's own tests try with real
// sockets.
package sim
