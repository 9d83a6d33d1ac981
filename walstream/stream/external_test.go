package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/lsnode/lsnode/walstream"
)

// natsServer starts a NATS server with a TCP port, as a user would have one.
func natsServer(t testing.TB, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS server is not ready")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

func sealer(t testing.TB, cluster string, keys ...byte) *Sealer {
	t.Helper()
	var all []Key
	for _, k := range keys {
		all = append(all, Key{ID: uint32(k), Secret: [32]byte{k}})
	}
	s, err := NewSealer(cluster, all...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func external(t testing.TB, url string, s *Sealer) *Publisher {
	t.Helper()
	p, err := ConnectPublisher(ExternalConfig{URL: url, Cluster: s.cluster, Sealer: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// inbox collects messages.
type inbox struct {
	mu  sync.Mutex
	all []*Message
}

func (b *inbox) handle(_ context.Context, m *Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, m)
	return nil
}

func (b *inbox) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}

func (b *inbox) last() *Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[len(b.all)-1]
}

func TestExternalNATSSeesNothingAndChangesNothing(t *testing.T) {
	r := seeded(t)
	url := natsServer(t, -1).ClientURL()
	var in inbox
	sub := follow(t, SubscriberConfig{URL: url, Sealer: sealer(t, cluster, 1), Handle: in.handle})
	p := external(t, url, sealer(t, cluster, 1))

	// Somebody else on that server takes down each message.
	eve, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer eve.Close()
	heard, err := eve.SubscribeSync("lsnode.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := eve.Flush(); err != nil {
		t.Fatal(err)
	}

	x := txn(r, "db", 7, 4096, 1, 2)
	record := records(t, x)[0]
	if err := p.Publish(&x.Header, record); err != nil {
		t.Fatal(err)
	}
	if err := p.Announce(&x.Header); err != nil {
		t.Fatal(err)
	}
	if err := p.Standing("db", x.Post); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three messages", func() bool { return in.count() == 3 })
	if m := in.all[0]; m.Kind != Whole || !bytes.Equal(m.Record, record) {
		t.Errorf("got %v", m)
	}

	msg, err := heard.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	first := ""
	for page := range x.Pages {
		first = string(page.Data[:64])
		break
	}
	if bytes.Contains(msg.Data, []byte(first)) || bytes.Contains(msg.Data, []byte("LSTX")) {
		t.Error("a message can be read")
	}

	// Whatever is sent in its place is refused.
	rejected := sub.Refused()
	try := func(what, subj string, data []byte) {
		t.Helper()
		before := in.count()
		if err := eve.Publish(subj, data); err != nil {
			t.Fatal(err)
		}
		rejected++
		eventually(t, what+" refused", func() bool { return sub.Refused() == rejected })
		if in.count() != before {
			t.Errorf("%s was taken", what)
		}
	}
	for i := range msg.Data {
		if i%97 == 0 || i < sealedHead+24 {
			bad := bytes.Clone(msg.Data)
			bad[i] ^= 0x10
			try(fmt.Sprintf("byte %d changed", i), msg.Subject, bad)
		}
	}
	try("cut", msg.Subject, msg.Data[:len(msg.Data)-1])
	try("empty", msg.Subject, nil)
	try("on another database's subject", subject(cluster, "other"), msg.Data)
	try("not sealed", msg.Subject, encodeWhole(nil, record))
	try("another cluster's", msg.Subject, sealer(t, "other", 1).seal(nil, "db", x.Post, encodeWhole(nil, record)))
	try("another key's", msg.Subject, sealer(t, cluster, 2).seal(nil, "db", x.Post, encodeWhole(nil, record)))
	forged := Key{ID: 1, Secret: [32]byte{2}}
	s, err := NewSealer(cluster, forged)
	if err != nil {
		t.Fatal(err)
	}
	try("another key's under our ID", msg.Subject, s.seal(nil, "db", x.Post, encodeWhole(nil, record)))

	// A replay can't be told from the first time here; it carries its old
	// position, and its epoch can't be raised.
	before := in.count()
	if err := eve.Publish(msg.Subject, msg.Data); err != nil {
		t.Fatal(err)
	}
	eventually(t, "replay", func() bool { return in.count() == before+1 })
	if h := in.last().Header; h.Pre != at(1, 6) || h.Post != at(1, 7) {
		t.Errorf("a replayed message says %v to %v", h.Pre, h.Post)
	}
}

func TestKeysAreRotated(t *testing.T) {
	url := natsServer(t, -1).ClientURL()
	var in inbox
	follow(t, SubscriberConfig{URL: url, Sealer: sealer(t, cluster, 2, 1), Handle: in.handle})
	for i, s := range []*Sealer{sealer(t, cluster, 1), sealer(t, cluster, 2, 1)} {
		if err := external(t, url, s).Standing("db", at(1, walstream.TXID(i+1))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "message", func() bool { return in.count() == i+1 })
	}
}

func TestExternalNATSGoneAndBack(t *testing.T) {
	s := natsServer(t, -1)
	url := s.ClientURL()
	port := s.Addr().(*net.TCPAddr).Port
	p := external(t, url, sealer(t, cluster, 1))
	var in inbox
	sub, err := NewSubscriber(SubscriberConfig{Cluster: cluster, URL: url, Sealer: sealer(t, cluster, 1), Handle: in.handle})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sub.Run(t.Context()) }()
	eventually(t, "first message", func() bool { _ = p.Standing("db", at(1, 1)); return in.count() > 0 })

	s.Shutdown()
	s.WaitForShutdown()
	if err := <-ended; !errors.Is(err, ErrLost) {
		t.Errorf("Run ended with %v", err)
	}
	start := time.Now()
	for range 1000 {
		_ = p.Standing("db", at(1, 2)) // dropped, and says so or not
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("1000 messages without NATS took %v", d)
	}
	eventually(t, "drops counted", func() bool { return p.Dropped() > 0 })

	natsServer(t, port)
	go func() { ended <- sub.Run(t.Context()) }()
	n := in.count()
	eventually(t, "messages again", func() bool { _ = p.Standing("db", at(1, 3)); return in.count() > n })
}

func TestQueueDropsWhatDoesNotFit(t *testing.T) {
	enter, leave := make(chan struct{}, 10), make(chan struct{})
	var handed []string
	q := newSendQueue(100, func(subject string, data []byte) error {
		enter <- struct{}{}
		<-leave
		handed = append(handed, subject) // by the queue's goroutine, which close waits for
		return nil
	})
	took := []bool{q.put("a", make([]byte, 60))}
	<-enter // it hangs: what it has counts until it is gone
	took = append(took, q.put("b", make([]byte, 60)), q.put("c", make([]byte, 40)), q.put("d", make([]byte, 1)))
	close(leave)
	q.close()
	took = append(took, q.put("e", nil))
	if want := []bool{true, false, true, false, false}; !slices.Equal(took, want) {
		t.Errorf("took %v, want %v", took, want)
	}
	if want := []string{"a", "c"}; !slices.Equal(handed, want) {
		t.Errorf("handed on %v, want %v", handed, want)
	}
}
