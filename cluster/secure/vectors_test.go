package secure_test

// Computed apart from this program with HKDF-SHA-256 (RFC 5869) over the bytes
// 00 01 02 ... 1f.
const (
	wantKeyID      = "954ab66956f31f78"
	wantGossipKey  = "100955d37d780b9eb864b10b0da8b2af152eb52fb8a0efd9f1e4468898335ea2"
	wantSealingKey = "99a3de62d39d374a6df37e7b560ceb69a509f4786924e58d69eeda0c63fe3dcb"
)
