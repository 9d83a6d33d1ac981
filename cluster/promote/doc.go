// Package promote decides what a candidate does with the positions that a
// majority of the voters has answered: which position each database goes on from,
// who has it, or whether another node should rather be candidate. It is pure: a
// function of its arguments.
//
//	answers ──▶ those on the history's line ──▶ most advanced, for each database ──▶ Target
//	                                        └─▶ another node has all that this one would have to seed ──▶ hand over
//
// Invariants:
//   - Every position that a majority had durable before the answers is at or
//     below the target: the most advanced of any majority wins.
//   - A position off the line does not compete. Nor does an empty copy against
//     data.
//   - Wishes (priority, no promotion) choose among nodes that have everything;
//     they never choose a position.
package promote
