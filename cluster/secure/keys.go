package secure

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
)

// The purposes for which keys are derived. They are part of the protocol: nodes
// that derive differently can't talk to each other.
const (
	infoKeyID   = "lsnode 1 key id"
	infoGossip  = "lsnode 1 gossip key"
	infoSealing = "lsnode 1 sealing key"
	infoCA      = "lsnode 1 certificate authority seed"
)

// derive returns n bytes for one purpose (RFC 5869, with SHA-256; no salt is
// needed, since the token is uniformly random).
func (t Token) derive(info string, n int) []byte {
	key, err := hkdf.Key(sha256.New, t.bytes(), nil, info, n)
	if err != nil {
		panic("secure: derive key: " + err.Error()) // only for a length beyond 255 hashes
	}
	return key
}

// KeyID returns the public name of the token: 16 hex digits from which nothing
// about the secret can be learned.
func (t Token) KeyID() string { return hex.EncodeToString(t.derive(infoKeyID, 8)) }

// GossipKey returns the 32 bytes with which gossip is encrypted (AES-256).
func (t Token) GossipKey() []byte { return t.derive(infoGossip, 32) }

// SealingKey returns the 32 bytes from which messages are sealed that go through
// a broker that is not ours.
func (t Token) SealingKey() []byte { return t.derive(infoSealing, 32) }

// caKey returns the cluster CA's key, the same on every node.
func (t Token) caKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(t.derive(infoCA, ed25519.SeedSize))
}
