package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// ErrKeyID is wrapped when a peer means another token than ours.
var ErrKeyID = errors.New("peer uses another cluster token")

// Credentials prove in TLS handshakes that this process has the token, and
// which node it is. They are immutable and safe for concurrent use.
type Credentials struct {
	nodeID      string
	keyID       string
	certificate tls.Certificate
	pool        *x509.CertPool // the cluster CA alone
}

// NewCredentials mints a certificate for a node. The node ID has 1 to 64 bytes.
func NewCredentials(t Token, nodeID string) (*Credentials, error) {
	if t.IsZero() {
		return nil, fmt.Errorf("make credentials: %w: none given", ErrToken)
	}
	if nodeID == "" || len(nodeID) > maxNodeID {
		return nil, fmt.Errorf("make credentials: node ID %q must have 1 to %d bytes", nodeID, maxNodeID)
	}
	keyID, caKey := t.KeyID(), t.caKey()
	ca, err := newCA(caKey, keyID)
	if err != nil {
		return nil, err
	}
	certificate, err := newNodeCertificate(ca, caKey, keyID, nodeID)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &Credentials{nodeID: nodeID, keyID: keyID, certificate: certificate, pool: pool}, nil
}

// NodeID returns the node that the certificate names.
func (c *Credentials) NodeID() string { return c.nodeID }

// KeyID returns the public name of the token.
func (c *Credentials) KeyID() string { return c.keyID }

// ClientConfig returns a new configuration for a connection that speaks the
// given protocol. The handshake succeeds only with a server that has the token;
// [PeerID] then says which node it is.
func (c *Credentials) ClientConfig(alpn string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		ServerName:   serverName(c.keyID),
		RootCAs:      c.pool,
		Certificates: []tls.Certificate{c.certificate},
		NextProtos:   []string{alpn},
	}
}

// ServerConfig returns a new configuration for accepted connections. protocols
// is asked in every handshake for what is spoken here right now, and must be
// safe for concurrent use. A client that names no protocol, an unknown one, or
// another key, or shows no certificate of this cluster, is refused before it
// has read anything but a TLS alert; only with the right key does it get to see
// a certificate.
func (c *Credentials) ServerConfig(protocols func() []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName != serverName(c.keyID) {
				return nil, fmt.Errorf("accept client that asks for %q: %w", hello.ServerName, ErrKeyID)
			}
			known := protocols()
			if len(hello.SupportedProtos) == 0 || len(known) == 0 {
				// TLS itself would let this pass.
				return nil, errors.New("accept client: no protocol in common")
			}
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				ClientAuth:             tls.RequireAndVerifyClientCert,
				ClientCAs:              c.pool,
				Certificates:           []tls.Certificate{c.certificate},
				NextProtos:             known,
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}
