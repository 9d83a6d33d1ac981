// Package secure makes everything that keeps strangers out of a cluster from
// its one secret, the token:
//
//	                        ┌─▶ key ID         public; names the token in each handshake
//	token ── HKDF-SHA-256 ──┼─▶ gossip key     AES-256 for memberlist
//	(256 random bits)       ├─▶ sealing key    for messages that go through a foreign broker
//	                        └─▶ CA key         Ed25519 ──▶ CA certificate, the same on every node
//	                                                  └──▶ this node's certificate, made at start
//
// Whoever has the token can mint a certificate for any node ID; whoever lacks
// it can mint none, and is refused in the TLS handshake, by both sides. A
// certificate says which node the peer is, among nodes that trust each other.
//
// Choices:
//
//   - The CA key is Ed25519 because making one from a seed is deterministic in
//     Go, which ECDSA is not.
//   - Certificates are valid at any time. They live in memory only, next to the
//     token that can make new ones, so that an end of validity would protect
//     nothing, while a host whose clock is off (a wrong date after a reboot is
//     common) would fall out of the cluster, and a process would have to renew
//     its certificate while it runs. What ends the validity of all certificates
//     is a new token.
//   - The client says the key ID in SNI before it gets to see anything, and a
//     server that does not have this key ends the handshake there. So a server
//     can one day know two tokens at once, and tell which one a peer means.
//   - Session tickets are off: every connection proves the token afresh.
//
// The token is never printed: a [Token] shows itself as its key ID in logs,
// errors and JSON. [Token.Reveal] is the only way to its text.
//
// The package does not encrypt what lies on disk, and does not tell nodes that
// have the token apart in what they may do.
package secure
