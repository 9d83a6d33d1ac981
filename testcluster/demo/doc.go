// Package demo is what `lsnode demo` shows: three nodes on this machine, as real
// processes, a small bank that writes on the primary and readers that check it
// on the followers; the primary is killed, another takes over, the dead one
// comes back, and in the end all three databases are compared.
//
//	start ─▶ work ─▶ kill ─▶ takeover ─▶ work ─▶ rejoin ─▶ check
//	                        view: positions and lag, all the time ─▶ screen
//
// It asserts what it shows: the sum of money in every snapshot that any reader
// saw, every commit that the bank saw succeed, equal pages and rows on all
// nodes. If one check fails, Run returns an error.
package demo
