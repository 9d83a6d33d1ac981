// Package api is how people, load balancers and scripts talk to one running
// node: the HTTP endpoints, the types of their answers, and a [Client] for the
// command line.
//
//	lsnode status ─▶ Client ─┐
//	load balancer ───────────┼─▶ Server ─▶ Backend (the node)
//	Prometheus ──────────────┘
//
// Reading is open to whoever reaches the address. What changes the cluster needs
// "Authorization: Bearer TOKEN" with the cluster's token. Errors are
// {"error":"…"} with a status code that says of which kind they are, on unknown
// paths too.
//
// The package decides nothing about the cluster and keeps no state of it: each
// answer comes from the [Backend] at the time of the request. It bounds what a
// client can make it hold: headers, bodies, time, and requests that wait.
//
// A running node leaves its address in its data dir ([WriteAddress]), where the
// command line finds it ([ReadAddress]).
package api
