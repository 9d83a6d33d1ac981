package secure

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// ErrPeer is wrapped when a peer has shown no certificate of this cluster, or
// one that does not say which node it is.
var ErrPeer = errors.New("peer has not proved to be a node of this cluster")

const (
	maxNodeID = 64
	uriScheme = "lsnode"
)

// validFrom and validTo are the bounds of every certificate; the later one is
// how RFC 5280 says "no end".
var (
	validFrom = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	validTo   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// newCA makes the cluster's CA certificate. It is the same on every node: the
// key comes from the token, and all else is fixed.
func newCA(key ed25519.PrivateKey, keyID string) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "lsnode cluster " + keyID},
		NotBefore:             validFrom,
		NotAfter:              validTo,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // nodes are not CAs
		KeyUsage:              x509.KeyUsageCertSign,
		SubjectKeyId:          subjectKeyID(key),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make cluster CA: %w", err)
	}
	return x509.ParseCertificate(der)
}

// newNodeCertificate makes a fresh key and its certificate for a node.
func newNodeCertificate(ca *x509.Certificate, caKey ed25519.PrivateKey, keyID, nodeID string) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make node key: %w", err)
	}
	template := &x509.Certificate{
		// No serial number: a random one is made.
		Subject:      pkix.Name{CommonName: nodeID},
		URIs:         []*url.URL{nodeURI(nodeID)},
		DNSNames:     []string{serverName(keyID)},
		NotBefore:    validFrom,
		NotAfter:     validTo,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		SubjectKeyId: subjectKeyID(private),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, public, caKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make node certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make node certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}, nil
}

// PeerID returns which node the other side of a finished handshake is.
func PeerID(state tls.ConnectionState) (string, error) {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return "", fmt.Errorf("identify peer: %w: no certificate", ErrPeer)
	}
	leaf := state.PeerCertificates[0]
	for _, uri := range leaf.URIs {
		if uri.Scheme == uriScheme && uri.Host == "node" && len(uri.Path) > 1 && len(uri.Path) <= maxNodeID+1 {
			return uri.Path[1:], nil
		}
	}
	return "", fmt.Errorf("identify peer: %w: its certificate names no node", ErrPeer)
}

// nodeURI is where a certificate says whose it is: lsnode://node/ID.
func nodeURI(nodeID string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: "node", Path: "/" + nodeID}
}

// serverName is what a client puts in SNI, and what a node's certificate is
// checked against: it names the token, not the host, since hosts have no names
// that a certificate could vouch for.
func serverName(keyID string) string { return keyID + ".key.lsnode.internal" }

func subjectKeyID(key ed25519.PrivateKey) []byte {
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return sum[:20]
}
