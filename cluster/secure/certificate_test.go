package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
)

// TestForgedCertificate: knowing the key ID, which is public, helps nobody to
// make a certificate, neither as a server nor as a client.
func TestForgedCertificate(t *testing.T) {
	token, foreign := NewToken(), NewToken()
	honest, err := NewCredentials(token, "node-a")
	if err != nil {
		t.Fatal(err)
	}
	forger, err := NewCredentials(foreign, "node-b")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := newCA(foreign.caKey(), token.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	forger.keyID = token.KeyID()
	forger.certificate, err = newNodeCertificate(ca, foreign.caKey(), token.KeyID(), "node-b")
	if err != nil {
		t.Fatal(err)
	}
	spoken := func() []string { return []string{"x"} }
	trusting := forger.ClientConfig("x")
	trusting.InsecureSkipVerify = true
	for what, ends := range map[string]struct{ client, server *tls.Config }{
		"server": {honest.ClientConfig("x"), forger.ServerConfig(spoken)},
		"client": {trusting, honest.ServerConfig(spoken)},
	} {
		a, b := net.Pipe()
		served := make(chan error, 1)
		go func() {
			err := tls.Server(b, ends.server).Handshake()
			b.Close()
			served <- err
		}()
		client := tls.Client(a, ends.client)
		err := client.Handshake()
		if err == nil {
			_, err = client.Read(make([]byte, 1))
		}
		a.Close()
		refusal := map[string]error{"server": err, "client": <-served}[what]
		var unknown x509.UnknownAuthorityError
		if !errors.As(refusal, &unknown) {
			t.Errorf("forged %s: %v", what, refusal)
		}
	}
}

// TestCAIsTheSameOnEveryNode: byte for byte, so that nodes trust each other
// whenever and wherever they start.
func TestCAIsTheSameOnEveryNode(t *testing.T) {
	token := NewToken()
	first, err := newCA(token.caKey(), token.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	second, err := newCA(token.caKey(), token.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equal(second) {
		t.Error("two certificates")
	}
}
