package stream

import (
	"context"
	"errors"
	"iter"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// pull returns the positions of what Since gives, and its error.
func pull(ctx context.Context, c *Client, q Since) (got []walstream.Position, err error) {
	for x, err := range c.Since(ctx, q) {
		if err != nil {
			return got, err
		}
		for _, err := range x.Txn.Pages {
			if err != nil {
				return got, err
			}
		}
		got = append(got, x.Txn.Post)
	}
	return got, nil
}

func TestSinceSaysWhatItHas(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	for i := walstream.TXID(1); i <= 10; i++ {
		log.append(t, txn(r, "db", i, 4096, 1, 2))
	}
	log.drop(2)
	_, c := serve(t, ServerConfig{Log: log})
	for _, test := range []struct {
		name        string
		q           Since
		first, last walstream.TXID // 0: nothing
		err         error
	}{
		{"from the oldest", Since{Database: "db", After: at(1, 2)}, 3, 10, nil},
		{"from the middle", Since{Database: "db", After: at(1, 7)}, 8, 10, nil},
		{"at the end", Since{Database: "db", After: at(1, 10)}, 0, 0, nil},
		{"a part", Since{Database: "db", After: at(1, 4), Until: at(1, 6)}, 5, 6, nil},
		{"a part already there", Since{Database: "db", After: at(1, 4), Until: at(1, 4)}, 0, 0, nil},
		{"a part, following", Since{Database: "db", After: at(1, 4), Until: at(1, 6), Follow: true}, 5, 6, nil},
		{"too old", Since{Database: "db", After: at(1, 1)}, 0, 0, txlog.ErrTruncated},
		{"from the beginning", Since{Database: "db"}, 0, 0, txlog.ErrTruncated},
		{"beyond", Since{Database: "db", After: at(1, 11)}, 0, 0, txlog.ErrNotOnLine},
		{"another line", Since{Database: "db", After: at(2, 5)}, 0, 0, txlog.ErrNotOnLine},
		{"another database", Since{Database: "bd", After: at(1, 5)}, 0, 0, ErrUnknownDatabase},
		{"no name", Since{Database: "../db", After: at(1, 5)}, 0, 0, ErrRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := pull(soon(t), c, test.q)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			var want []walstream.Position
			for i := test.first; i <= test.last && i > 0; i++ {
				want = append(want, at(1, i))
			}
			if len(got) != len(want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("got %v, want %v", got[i], want[i])
				}
			}
		})
	}
}

func TestHeads(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	log.append(t, txn(r, "db", 1, 4096, 1))
	log.append(t, txn(r, "db", 2, 4096, 1))
	log.drop(1)
	_, c := serve(t, ServerConfig{Log: log})
	heads, err := c.Heads(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	want := Head{Database: "db", First: at(1, 1), Last: at(1, 2), Durable: at(1, 2)}
	if len(heads) != 1 || heads[0] != want {
		t.Errorf("got %v, want %v", heads, want)
	}
}

func TestFollowGetsWhatIsAppended(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	log.append(t, txn(r, "db", 1, 4096, 1))
	_, c := serve(t, ServerConfig{Log: log, PingInterval: time.Millisecond})
	ctx, cancel := context.WithCancelCause(soon(t))
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	next := walstream.TXID(1)
	enough := errors.New("enough")
	for x, err := range c.Since(ctx, Since{Database: "db", Follow: true}) {
		if errors.Is(err, enough) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if x.Txn.Post != at(1, next) {
			t.Fatalf("got %v, want %v", x.Txn.Post, at(1, next))
		}
		next++
		if next == 30 {
			cancel(enough)
			continue
		}
		i := next
		wg.Go(func() {
			time.Sleep(5 * time.Millisecond) // let it idle, so that pings pass
			log.append(t, txn(r, "db", i, 4096, 1))
		})
	}
	t.Fatal("following ended without a reason")
}

func TestGapIsFilled(t *testing.T) {
	r := seeded(t)
	b, live := broker(t, BrokerConfig{})
	log := newMemLog("db")
	_, c := serve(t, ServerConfig{Log: log})
	p := publisher(t, b)
	var mu sync.Mutex
	var have walstream.Position
	follow(t, SubscriberConfig{Dial: live.dial, Handle: func(ctx context.Context, m *Message) error {
		mu.Lock()
		defer mu.Unlock()
		if m.Kind == Whole && m.Header.Pre == have {
			have = m.Header.Post
			return nil
		}
		got, err := pull(ctx, c, Since{Database: "db", After: have, Until: m.Header.Post})
		if len(got) > 0 {
			have = got[len(got)-1]
		}
		return err
	}})
	for i := walstream.TXID(1); i <= 60; i++ {
		x := txn(r, "db", i, 4096, 1, 2, 3)
		log.append(t, x)
		var err error
		switch {
		case i%10 == 5, i%10 == 6: // lost on its way
		case i == 60:
			err = p.Standing("db", at(1, 60)) // the message itself was lost
		case i%10 == 9:
			err = p.Announce(&x.Header)
		default:
			err = p.Publish(&x.Header, records(t, x)[0])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all 60", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return have == at(1, 60)
	})
}

// A peer whose log has a gap must not make one in ours.
func TestTransactionsMustJoinUp(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	for _, i := range []walstream.TXID{1, 2, 4} {
		log.append(t, txn(r, "db", i, 4096, 1))
	}
	_, c := serve(t, ServerConfig{Log: log})
	got, err := pull(soon(t), c, Since{Database: "db"})
	if len(got) != 2 || !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v and %v, want two and ErrProtocol", got, err)
	}
}

// endless is a log of one large transaction that is made while it is read.
type endless struct {
	*memLog
	x *walstream.Txn
}

func (l endless) Last(string) walstream.Position { return l.x.Post }

func (l endless) Records(string, walstream.Position) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		stop := errors.New("stop")
		err := walstream.Encode(l.x, func(b []byte) error {
			if !yield(b, nil) {
				return stop
			}
			return nil
		})
		if err != nil && err != stop {
			yield(nil, err)
		}
	}
}

func TestLargeTransactionIsPulledInBoundedMemory(t *testing.T) {
	const pageSize, pages = 4096, 64 << 20 / 4096
	content := page(seeded(t), pageSize)
	x := txn(seeded(t), "db", 1, pageSize, pages)
	x.Pages = func(yield func(walstream.Page, error) bool) {
		for no := uint32(1); no <= pages; no++ {
			content[0], content[1] = byte(no), byte(no>>8)
			if !yield(walstream.Page{No: no, Data: content}, nil) {
				return
			}
		}
	}
	_, c := serve(t, ServerConfig{Log: endless{newMemLog("db"), x}})
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var most uint64
	for got, err := range c.Since(soon(t), Since{Database: "db", Until: at(1, 1)}) {
		if err != nil {
			t.Fatal(err)
		}
		if got.Record != nil || got.Txn.Post.Checksum != 0 {
			t.Errorf("a large transaction came whole, or its checksum before its pages: %v", got.Txn.Header)
		}
		n := uint32(0)
		for p, err := range got.Txn.Pages {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if p.No != n || p.Data[0] != byte(n) || p.Data[1] != byte(n>>8) {
				t.Fatalf("page %d is %d", n, p.No)
			}
			if n%2048 == 0 {
				runtime.GC()
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
		}
		if n != pages || got.Txn.Post != at(1, 1) {
			t.Errorf("%d pages up to %v", n, got.Txn.Post)
		}
		for _, err := range got.Txn.Pages {
			if err == nil {
				t.Error("pages could be walked over twice")
			}
		}
	}
	t.Logf("64 MiB pulled with %d KiB more on the heap", (int64(most)-int64(before.HeapAlloc))>>10)
	if most > before.HeapAlloc+16<<20 {
		t.Errorf("heap grew from %d to %d bytes", before.HeapAlloc, most)
	}
}

func TestLargeTransactionNotWalkedIsSkipped(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	all := make([]uint32, 500)
	for i := range all {
		all[i] = uint32(i + 1)
	}
	log.append(t, txn(r, "db", 1, 4096, all...))
	log.append(t, txn(r, "db", 2, 4096, 7))
	_, c := serve(t, ServerConfig{Log: log})
	var n, pages int
	for x, err := range c.Since(soon(t), Since{Database: "db"}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 1 {
			for range x.Txn.Pages {
				if pages++; pages == 10 {
					break
				}
			}
		}
	}
	if n != 2 || pages != 10 {
		t.Errorf("%d transactions, %d pages", n, pages)
	}
}

// A transaction that breaks off must not look complete.
func TestBrokenConnectionWithinLargeTransaction(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	all := make([]uint32, 1000)
	for i := range all {
		all[i] = uint32(i + 1)
	}
	log.append(t, txn(r, "db", 1, 4096, all...))
	port, _ := serve(t, ServerConfig{Log: log})
	m := &meter{limit: func() int64 { return 1 << 20 }}
	c := NewClient(ClientConfig{Dial: m.dialer(port.dial)})
	for x, err := range c.Since(soon(t), Since{Database: "db"}) {
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
			return
		}
		var last error
		for _, err := range x.Txn.Pages {
			last = err
		}
		if last == nil || x.Txn.Post.Checksum != 0 {
			t.Errorf("the walk ended with %v, checksum %v", last, x.Txn.Post.Checksum)
		}
	}
	t.Error("the pull ended without an error")
}

func TestStalledPeersAreDropped(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	for i := walstream.TXID(1); i <= 100; i++ {
		log.append(t, txn(r, "db", i, 65536, 1, 2, 3))
	}
	s, err := NewServer(ServerConfig{Log: log, Snapshot: newMemDB(r, 4096, 10).snapshot,
		Stall: 100 * time.Millisecond, PingInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for name, behave := range map[string]func(l *link) error{
		"says nothing":         func(*link) error { return nil },
		"says half a frame":    func(l *link) error { _, err := l.conn.Write([]byte{0, 0, 0}); return err },
		"asks nothing":         func(l *link) error { return l.sendNow(frameHello, encodeHello(1, 1)) },
		"doesn't take records": ask(frameSince, (&sinceRequest{database: "db"}).encode()),
		"answers no ping":      ask(frameSince, (&sinceRequest{database: "db", after: at(1, 100), follow: true}).encode()),
		"compares nothing":     ask(frameRepair, (&repairRequest{database: "db"}).encode()),
	} {
		t.Run(name, func(t *testing.T) {
			theirs, ours := net.Pipe() // no buffers: what isn't read stalls at once
			defer theirs.Close()
			ended := make(chan error, 1)
			go func() { ended <- s.Serve(t.Context(), ours) }()
			if err := behave(newLink(theirs, patience)); err != nil {
				t.Fatal(err)
			}
			if name == "answers no ping" {
				go func() {
					l := newLink(theirs, patience)
					for {
						if _, _, err := l.receive(maxMessage); err != nil {
							return
						}
					}
				}()
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the server ended without an error")
				}
			case <-time.After(patience):
				t.Fatal("the server still waits")
			}
		})
	}
}

// ask says hello and asks, and then does nothing more.
func ask(t frameType, payload []byte) func(*link) error {
	return func(l *link) error {
		if err := l.sendNow(frameHello, encodeHello(1, 1)); err != nil {
			return err
		}
		if _, err := l.expect(frameHello, maxControl); err != nil {
			return err
		}
		return l.sendNow(t, payload)
	}
}

func TestStalledServerIsNoticed(t *testing.T) {
	theirs, ours := net.Pipe()
	defer theirs.Close()
	c := NewClient(ClientConfig{Stall: 50 * time.Millisecond, Dial: func(context.Context) (net.Conn, error) { return ours, nil }})
	if _, err := pull(soon(t), c, Since{Database: "db"}); err == nil {
		t.Error("no error")
	}
}

func TestVersionsAreNegotiated(t *testing.T) {
	s, err := NewServer(ServerConfig{Log: newMemLog("db"), Snapshot: newMemDB(seeded(t), 4096, 1).snapshot})
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := net.Pipe()
	defer theirs.Close()
	go s.Serve(t.Context(), ours)
	l := newLink(theirs, patience)
	if err := l.sendNow(frameHello, encodeHello(2, 7)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.expect(frameHello, maxControl); !errors.Is(err, walstream.ErrVersion) {
		t.Errorf("a client of the future got %v", err)
	}
}

func TestLeavingAWalkWhoseContextEnded(t *testing.T) {
	r := seeded(t)
	log := newMemLog("db")
	log.append(t, txn(r, "db", 1, 4096, 1))
	log.append(t, txn(r, "db", 2, 4096, 1))
	_, c := serve(t, ServerConfig{Log: log})
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	for _, err := range c.Since(ctx, Since{Database: "db"}) {
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		break // a walk that goes on after this panics
	}
}
