package stream

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// cluster is the cluster of all tests here.
const cluster = "c0ffee"

// broker starts a broker behind a port with TLS.
func broker(t testing.TB, cfg BrokerConfig) (*Broker, *port) {
	t.Helper()
	b, err := NewBroker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	p := listen(t)
	p.serve(t, b.ServeConn)
	return b, p
}

func publisher(t testing.TB, b *Broker) *Publisher {
	t.Helper()
	p, err := b.Publisher(cluster)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// follow runs a subscriber until the test ends, and returns when it is ready.
func follow(t testing.TB, cfg SubscriberConfig) *Subscriber {
	t.Helper()
	ready := make(chan struct{})
	cfg.Cluster, cfg.Ready = cluster, func() { close(ready) }
	s, err := NewSubscriber(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil && !errors.Is(err, ErrLost) {
			t.Errorf("subscriber: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("subscriber is not ready")
	}
	return s
}

func TestLiveMessagesArriveWholeAndInOrder(t *testing.T) {
	r := seeded(t)
	b, port := broker(t, BrokerConfig{})
	type got struct {
		mu  sync.Mutex
		all []*Message
	}
	followers := make([]got, 3)
	for i := range followers {
		g := &followers[i]
		follow(t, SubscriberConfig{Dial: port.dial, Handle: func(_ context.Context, m *Message) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.all = append(g.all, m)
			return nil
		}})
	}
	p := publisher(t, b)
	const n = 500
	var want [][]byte
	for i := walstream.TXID(1); i <= n; i++ {
		x := txn(r, "a.b-c", i, 4096, 1, 2+uint32(i%7))
		record, ok, err := walstream.EncodeOne(x, MaxRecord)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		want = append(want, record)
		if err := p.Publish(&x.Header, record); err != nil {
			t.Fatal(err)
		}
	}
	large := txn(r, "a.b-c", n+1, 4096, 1)
	if err := p.Announce(&large.Header); err != nil {
		t.Fatal(err)
	}
	if err := p.Standing("a.b-c", at(1, n+1)); err != nil {
		t.Fatal(err)
	}
	for i := range followers {
		g := &followers[i]
		eventually(t, "all messages", func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.all) == n+2
		})
		for j, m := range g.all[:n] {
			if m.Kind != Whole || !bytes.Equal(m.Record, want[j]) || m.Header.Post != at(1, walstream.TXID(j+1)) {
				t.Fatalf("follower %d, message %d: %v %v", i, j, m.Kind, m.Header)
			}
		}
		if m := g.all[n]; m.Kind != Announced || m.Header != large.Header || m.Txn != nil {
			t.Errorf("announcement: %+v", m)
		}
		if m := g.all[n+1]; m.Kind != Standing || m.Header.Post != at(1, n+1) || m.Header.Database != "a.b-c" {
			t.Errorf("standing: %+v", m)
		}
	}
}

func TestStalledFollowerDisturbsNobody(t *testing.T) {
	r := seeded(t)
	b, err := NewBroker(BrokerConfig{MaxPending: 4 << 20, StallTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	var served atomic.Int64
	port := listen(t)
	port.serve(t, func(ctx context.Context, conn net.Conn) error {
		served.Add(1)
		defer served.Add(-1)
		return b.ServeConn(ctx, conn)
	})
	var seen atomic.Uint64
	follow(t, SubscriberConfig{Dial: port.dial, Handle: func(_ context.Context, m *Message) error {
		seen.Store(uint64(m.Header.Post.TXID))
		return nil
	}})
	// The stalled one subscribes, then never reads again.
	stalledConn := make(chan *stallConn, 1)
	dial := func(ctx context.Context) (net.Conn, error) {
		c, err := port.dial(ctx)
		if err != nil {
			return nil, err
		}
		s := &stallConn{Conn: c, stalled: make(chan struct{}), closed: make(chan struct{})}
		stalledConn <- s
		return s, nil
	}
	follow(t, SubscriberConfig{Dial: dial, PingInterval: time.Hour,
		Handle: func(context.Context, *Message) error { return nil }})
	conn := <-stalledConn
	close(conn.stalled)

	p := publisher(t, b)
	const n = 600 // 60 MB: more than sockets and MaxPending hold
	x := txn(r, "db", 1, 65536, 1, 2, 3)
	var lags, calls []time.Duration
	for i := walstream.TXID(1); i <= n; i++ {
		x.Pre, x.Post = at(1, i-1), at(1, i)
		record, _, err := walstream.EncodeOne(x, MaxRecord)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := p.Publish(&x.Header, record); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, time.Since(start))
		eventually(t, "message at the other follower", func() bool { return seen.Load() == uint64(i) })
		lags = append(lags, time.Since(start))
	}
	slices.Sort(lags)
	slices.Sort(calls)
	t.Logf("100 KB messages beside a stalled follower: p50 %v, p99 %v, worst %v; publish call p99 %v, worst %v",
		lags[n/2], lags[n*99/100], lags[n-1], calls[n*99/100], calls[n-1])
	if calls[n-1] > time.Second {
		t.Errorf("a publish call took %v", calls[n-1])
	}
	if n := b.srv.NumStalledClients(); n != 0 {
		t.Errorf("the publisher was made to wait %d times", n)
	}
	eventually(t, "stalled connection dropped", func() bool { return served.Load() == 1 })
}

// stallConn is a connection whose reader stops for good once stalled is closed.
type stallConn struct {
	net.Conn
	stalled, closed chan struct{}
	once            sync.Once
}

func (c *stallConn) Read(b []byte) (int, error) {
	select {
	case <-c.stalled:
		<-c.closed
		return 0, net.ErrClosed
	default:
	}
	return c.Conn.Read(b)
}

func (c *stallConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// What a handler can't take in time is dropped, counted, and shows as a gap.
func TestSlowHandlerSeesAGap(t *testing.T) {
	r := seeded(t)
	b, port := broker(t, BrokerConfig{})
	release := make(chan struct{})
	var in inbox
	var m meter
	s := follow(t, SubscriberConfig{Dial: m.dialer(port.dial), Pending: 100_000, Handle: func(ctx context.Context, m *Message) error {
		<-release
		return in.handle(ctx, m)
	}})
	p := publisher(t, b)
	x := txn(r, "db", 1, 4096, 1, 2, 3)
	const n = 100
	for i := walstream.TXID(1); i <= n; i++ {
		x.Pre, x.Post = at(1, i-1), at(1, i)
		if err := p.Publish(&x.Header, records(t, x)[0]); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "far more at the follower than it may keep", func() bool { return m.in.Load() > 400_000 })
	close(release)
	eventually(t, "a later message", func() bool {
		_ = p.Standing("db", at(1, n))
		return in.count() > 0 && in.last().Kind == Standing
	})
	if s.Dropped() == 0 || in.count() >= n {
		t.Errorf("%d drops, %d messages", s.Dropped(), in.count())
	}
}

func TestSubscriberNoticesTheEnd(t *testing.T) {
	b, port := broker(t, BrokerConfig{})
	ready := make(chan struct{})
	s, err := NewSubscriber(SubscriberConfig{Cluster: cluster, Dial: port.dial, Ready: func() { close(ready) },
		Handle: func(context.Context, *Message) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	<-ready
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
	case <-time.After(patience):
		t.Fatal("Run did not notice that the broker ended")
	}
	if err := s.Run(t.Context()); !errors.Is(err, ErrLost) {
		t.Errorf("Run without a broker: %v, want ErrLost", err)
	}
}

// What a node does: whenever the live stream is lost, connect again, and pull
// what was missed once the subscription stands.
func TestFollowerReconnectsAndCatchesUp(t *testing.T) {
	r, breakAt := seeded(t), seeded(t)
	b, live := broker(t, BrokerConfig{})
	log := newMemLog("db")
	_, c := serve(t, ServerConfig{Log: log})
	p := publisher(t, b)
	const n = 400
	var have walstream.Position // owned by the follower's goroutine
	runs := 0
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	catchUp := func() {
		got, err := pull(ctx, c, Since{Database: "db", After: have})
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrUnknownDatabase) {
			t.Errorf("catch up: %v", err)
		}
		if len(got) > 0 {
			have = got[len(got)-1]
		}
	}
	m := &meter{limit: func() int64 { return 5_000 + breakAt.Int64N(500_000) }}
	s, err := NewSubscriber(SubscriberConfig{Cluster: cluster, Dial: m.dialer(live.dial), Ready: catchUp,
		Handle: func(_ context.Context, m *Message) error {
			switch {
			case m.Header.Post.Compare(have) <= 0: // pulled already
			case m.Header.Pre == have:
				have = m.Header.Post
			default:
				t.Errorf("a gap from %v to %v in one connection", have, m.Header.Pre)
			}
			if have.TXID == n {
				cancel()
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := walstream.TXID(1); i <= n; i++ {
			x := txn(r, "db", i, 4096, 1, 2, 3)
			log.append(t, x)
			if err := p.Publish(&x.Header, records(t, x)[0]); err != nil {
				t.Error(err)
			}
		}
		for ctx.Err() == nil { // the last may be lost like any other
			_ = p.Publish(&log.txns[n-1].Header, log.txns[n-1].records[0])
			time.Sleep(time.Millisecond)
		}
	})
	for ctx.Err() == nil {
		if err := s.Run(ctx); err != nil && !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		runs++
	}
	t.Logf("%d runs", runs)
	if have != at(1, n) || runs < 2 {
		t.Errorf("ended at %v after %d runs", have, runs)
	}
}

func TestPublisherSurvivesItsConnection(t *testing.T) {
	b, port := broker(t, BrokerConfig{})
	p := publisher(t, b)
	conns, err := b.srv.Connz(nil)
	if err != nil || len(conns.Conns) != 1 {
		t.Fatal(conns, err)
	}
	if err := b.srv.DisconnectClientByID(conns.Conns[0].Cid); err != nil {
		t.Fatal(err)
	}
	var in inbox
	follow(t, SubscriberConfig{Dial: port.dial, Handle: in.handle})
	eventually(t, "a message", func() bool { _ = p.Standing("db", at(1, 1)); return in.count() > 0 })
}

func TestHandlerErrorEndsRun(t *testing.T) {
	b, port := broker(t, BrokerConfig{})
	stop := errors.New("stop")
	ready := make(chan struct{})
	s, err := NewSubscriber(SubscriberConfig{Cluster: cluster, Dial: port.dial, Ready: func() { close(ready) },
		Handle: func(context.Context, *Message) error { return stop }})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	<-ready
	if err := publisher(t, b).Standing("db", at(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkLive(b *testing.B) {
	r := seeded(b)
	br, port := broker(b, BrokerConfig{})
	arrived := make(chan struct{}, 2)
	for range 2 {
		follow(b, SubscriberConfig{Dial: port.dial, Handle: func(context.Context, *Message) error {
			arrived <- struct{}{}
			return nil
		}})
	}
	p := publisher(b, br)
	x := txn(r, "db", 1, 4096, 1, 2, 3)
	record, _, err := walstream.EncodeOne(x, MaxRecord)
	if err != nil {
		b.Fatal(err)
	}
	var first, both []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := p.Publish(&x.Header, record); err != nil {
			b.Fatal(err)
		}
		<-arrived
		first = append(first, time.Since(start))
		<-arrived
		both = append(both, time.Since(start))
		time.Sleep(100 * time.Microsecond) // commits don't come back to back
	}
	slices.Sort(first)
	slices.Sort(both)
	b.ReportMetric(float64(first[len(first)/2].Microseconds()), "µs-p50-first")
	b.ReportMetric(float64(both[len(both)/2].Microseconds()), "µs-p50-both")
	b.ReportMetric(float64(both[len(both)*99/100].Microseconds()), "µs-p99-both")
}
