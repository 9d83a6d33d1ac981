package stream

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 30 * time.Second

// seeded returns a random source whose seed is in the test's output.
func seeded(t testing.TB) *mathrand.Rand {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	return mathrand.New(mathrand.NewPCG(seed, 0))
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// port is a listener on loopback with mutual TLS 1.3, as the node's port is.
type port struct {
	net.Listener
	config *tls.Config
}

func listen(t testing.TB) *port {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, DNSNames: []string{"node"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	config := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, ServerName: "node",
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &port{l, config}
}

// dial is a Dialer.
func (p *port) dial(ctx context.Context) (net.Conn, error) {
	d := tls.Dialer{Config: p.config}
	return d.DialContext(ctx, "tcp", p.Addr().String())
}

// serve hands each accepted connection to f until the test ends, and waits.
func (p *port) serve(t testing.TB, f func(ctx context.Context, conn net.Conn) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := p.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				if err := f(ctx, conn); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					t.Logf("connection ended: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		p.Close()
		wg.Wait()
	})
}

// txn returns a transaction of database db at txid of epoch 1, with pages of
// random content: half of each page can be compressed.
func txn(r *mathrand.Rand, db string, txid walstream.TXID, pageSize uint32, pages ...uint32) *walstream.Txn {
	content := map[uint32][]byte{}
	var count uint32
	for _, no := range pages {
		content[no] = page(r, pageSize)
		count = max(count, no)
	}
	return &walstream.Txn{
		Header: walstream.Header{
			Database: db, Kind: walstream.KindPages, PageSize: pageSize, PageCount: count,
			Time: time.UnixMilli(1_700_000_000_000).UTC(), Pre: at(1, txid-1), Post: at(1, txid),
		},
		Pages: func(yield func(walstream.Page, error) bool) {
			for _, no := range pages {
				if !yield(walstream.Page{No: no, Data: content[no]}, nil) {
					return
				}
			}
		},
	}
}

// at returns a position whose checksum is made up from its other numbers.
func at(epoch walstream.Epoch, txid walstream.TXID) walstream.Position {
	if txid == 0 {
		return walstream.Position{}
	}
	return walstream.Position{Epoch: epoch, TXID: txid, Checksum: walstream.ChecksumFlag | walstream.Checksum(txid)<<8 | walstream.Checksum(epoch)}
}

func page(r *mathrand.Rand, size uint32) []byte {
	b := make([]byte, size)
	for i := uint32(0); i < size/2; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

// records encodes a transaction.
func records(t testing.TB, x *walstream.Txn) [][]byte {
	t.Helper()
	var all [][]byte
	if err := walstream.Encode(x, func(b []byte) error {
		all = append(all, append([]byte(nil), b...))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}
