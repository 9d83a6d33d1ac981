package stream

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"

	"github.com/lsnode/lsnode/walstream"
)

func FuzzMessage(f *testing.F) {
	r := seeded(f)
	x := txn(r, "db", 2, 512, 1, 2)
	f.Add(encodeWhole(nil, records(f, x)[0]))
	f.Add(encodeNotice(nil, Announced, &x.Header))
	f.Add(encodeNotice(nil, Standing, &walstream.Header{Database: "db", Kind: walstream.KindBase, Post: at(1, 2)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if err := m.Header.Validate(); err != nil {
			t.Errorf("taken: %v", err)
		}
		if m.Kind != Whole {
			if again := encodeNotice(nil, m.Kind, &m.Header); len(again) != len(b) {
				t.Errorf("%x became %x", b, again)
			}
			return
		}
		for _, err := range m.Txn.Pages {
			if err != nil {
				return
			}
		}
	})
}

func FuzzSealed(f *testing.F) {
	s := sealer(f, cluster, 1)
	h := &walstream.Header{Database: "db", Kind: walstream.KindBase, Post: at(1, 2)}
	good := s.seal(nil, "db", h.Post, encodeNotice(nil, Standing, h))
	f.Add(good)
	f.Add(good[:sealedHead+24])
	f.Fuzz(func(t *testing.T, b []byte) {
		// Each process of the fuzzer has sealed its own good one.
		if m, err := s.open(b, "db"); err == nil && (m.Kind != Standing || m.Header.Post != h.Post) {
			t.Errorf("%x opened", b)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add((&sinceRequest{database: "db", after: at(1, 2), follow: true}).encode())
	f.Add((&Head{Database: "db", Last: at(1, 2)}).encode())
	f.Add(encodeHello(1, 1))
	f.Add(encodeError(ErrBusy))
	f.Add(appendSums(nil, 3, []walstream.Checksum{1, 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeSince(b); err == nil && !bytes.Equal(q.encode(), b) {
			t.Errorf("since: %x became %x", b, q.encode())
		}
		if q, err := decodeRepair(b); err == nil && !bytes.Equal(q.encode(), b) {
			t.Errorf("repair: %x became %x", b, q.encode())
		}
		if h, err := decodeHead(b); err == nil && !bytes.Equal(h.encode(), b) {
			t.Errorf("head: %x became %x", b, h.encode())
		}
		if from, to, err := decodeHello(b); err == nil && !bytes.Equal(encodeHello(from, to), b) {
			t.Errorf("hello: %x", b)
		}
		if n, sums, err := decodeSums(b); err == nil && !bytes.Equal(appendSums(nil, n, sums), b) {
			t.Errorf("sums: %x", b)
		}
		if decodeError(b) == nil {
			t.Error("an error frame is no error")
		}
	})
}

func FuzzPages(f *testing.F) {
	var c lz4.Compressor
	one := appendPage(nil, &c, 1, make([]byte, 512))
	f.Add(one, uint32(10))
	f.Add(appendPage(one, &c, 7, bytes.Repeat([]byte("random?!"), 64)), uint32(10))
	f.Fuzz(func(t *testing.T, b []byte, count uint32) {
		after := uint32(0)
		last, err := decodePages(b, make([]byte, 512), 0, count, func(no uint32, data []byte) error {
			if no <= after || no > count || len(data) != 512 {
				t.Errorf("page %d after %d, %d bytes", no, after, len(data))
			}
			after = no
			return nil
		})
		if err == nil && last != after {
			t.Errorf("last page %d, said %d", after, last)
		}
	})
}

// script is a connection whose peer says what it is given and then goes.
type script struct {
	net.Conn // nil: nothing else is called
	r        *bytes.Reader
}

func (s script) Read(b []byte) (int, error)       { return s.r.Read(b) }
func (s script) Write(b []byte) (int, error)      { return len(b), nil }
func (s script) Close() error                     { return nil }
func (s script) SetReadDeadline(time.Time) error  { return nil }
func (s script) SetWriteDeadline(time.Time) error { return nil }
func (s script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// frames is what a peer says, as bytes.
func frames(f func(l *link) error) []byte {
	var b bytes.Buffer
	l := newLink(&recorder{w: &b}, time.Minute)
	if err := f(l); err != nil {
		panic(err)
	}
	return b.Bytes()
}

type recorder struct {
	script
	w io.Writer
}

func (r *recorder) Write(b []byte) (int, error) { return r.w.Write(b) }

// FuzzServer: whatever a client says.
func FuzzServer(f *testing.F) {
	r := seeded(f)
	db := newMemDB(r, 512, 600)
	log := newMemLog("db")
	log.append(f, txn(r, "db", 1, 512, 1))
	s, err := NewServer(ServerConfig{Log: log, Snapshot: db.snapshot})
	if err != nil {
		f.Fatal(err)
	}
	for _, q := range []frameType{frameHeads, frameSince, frameRepair} {
		payload := map[frameType][]byte{
			frameSince:  (&sinceRequest{database: "db"}).encode(),
			frameRepair: (&repairRequest{database: "db"}).encode(),
		}[q]
		f.Add(frames(func(l *link) error {
			_ = l.send(frameHello, encodeHello(1, 1))
			_ = l.send(q, payload)
			_ = l.send(frameCompare, append([]byte{0, 0, 0, 0, 0, 3}, make([]byte, 48)...))
			return l.sendNow(frameSums, appendSums(nil, 0, []walstream.Checksum{1}))
		}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = s.Serve(t.Context(), script{r: bytes.NewReader(b)})
		if db.opened.Load() != 0 {
			t.Error("a snapshot stayed open")
		}
	})
}

// FuzzClient: whatever a server says.
func FuzzClient(f *testing.F) {
	r := seeded(f)
	x := txn(r, "db", 1, 512, 1, 2, 3)
	h := walstream.Header{Database: "db", Kind: walstream.KindBase, PageSize: 512, PageCount: 3, Post: at(1, 1)}
	f.Add(frames(func(l *link) error {
		_ = l.send(frameHello, encodeHello(1, 1))
		_ = l.send(frameRecord, records(f, x)[0])
		return l.sendNow(frameEnd, appendPosition(nil, at(1, 1)))
	}))
	f.Add(frames(func(l *link) error {
		_ = l.send(frameHello, encodeHello(1, 1))
		_ = l.send(frameSnapshot, walstream.AppendHeader(nil, &h))
		_ = l.send(frameDiffer, []byte{1})
		_ = l.send(framePages, appendPage(nil, &lz4.Compressor{}, 2, make([]byte, 512)))
		_ = l.send(frameSettled, nil)
		return l.sendNow(frameEnd, appendPosition(nil, at(1, 1)))
	}))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewClient(ClientConfig{Dial: func(context.Context) (net.Conn, error) {
			return script{r: bytes.NewReader(b)}, nil
		}})
		_, _ = pull(t.Context(), c, Since{Database: "db"})
		_, _ = c.Heads(t.Context())
		own, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		s := spool(t, own)
		a := &acceptor{q: Repair{Database: "db", Spool: s, Have: noSums{}}}
		_ = c.request(t.Context(), frameRepair, nil, a.run)
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	})
}
