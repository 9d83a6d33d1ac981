// Command bench measures lsnode with real processes on this machine and prints
// each figure beside its aim.
//
//	go run ./testcluster/bench [-parts lag,rate,failover,crash,switchover] [-rounds 5] [-runs 20] [-json FILE]
//
// Rounds are interleaved: each round measures every configuration once, in
// another order, so that what else the machine does falls on all of them.
//
//	lag         from COMMIT's return to visible in another process's reader on a follower
//	rate        commits a second at full speed with lsnode, over the same without it
//	failover    from SIGKILL of the primary to the first commit on another node
//	crash       the same, from the death of its whole host
//	switchover  between the last commit on the old primary and the first on the new one
package main
