package apply_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
)

// crashLog is a log as simple as can be: all transactions in one file, each
// after its length, and the number of those that count as received in another.
type crashLog struct {
	txns     []*walstream.Txn
	received *os.File
}

func writeCrashLog(t testing.TB, path string, txns []*walstream.Txn) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for _, txn := range txns {
		b, ok, err := walstream.EncodeOne(txn, 64<<20)
		if err != nil || !ok {
			t.Fatalf("encode %s: %v %v", txn.Post, ok, err)
		}
		w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		w.Write(b)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func openCrashLog(path string) (*crashLog, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &crashLog{}
	for len(b) > 4 {
		n := binary.BigEndian.Uint32(b)
		txn, err := walstream.Decode(b[4 : 4+n])
		if err != nil {
			return nil, err
		}
		l.txns = append(l.txns, txn)
		b = b[4+n:]
	}
	l.received, err = os.OpenFile(path+".received", os.O_RDWR|os.O_CREATE, 0o600)
	return l, err
}

func (l *crashLog) end() int {
	var b [8]byte
	if _, err := l.received.ReadAt(b[:], 0); err != nil {
		return 0
	}
	return int(binary.BigEndian.Uint64(b[:]))
}

func (l *crashLog) append(n int) error {
	_, err := l.received.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(n)), 0)
	return err
}

// since gives what was received after a position.
func (l *crashLog) since(pos walstream.Position) iter.Seq2[*walstream.Txn, error] {
	return func(yield func(*walstream.Txn, error) bool) {
		for _, txn := range l.txns[:l.end()] {
			if txn.Post.Compare(pos) > 0 && !yield(txn, nil) {
				return
			}
		}
	}
}

// applierRole is a follower: it brings the copy to the log's end as one
// transaction, and then applies one after the other until it is done or killed.
func applierRole(args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log, err := openCrashLog(args[1])
	if err != nil {
		return err
	}
	c, err := tryOpen(args[0], func(c *apply.Config) { c.CheckpointFrames = 60 })
	if err != nil {
		return err
	}
	if err := c.Fence(ctx); err != nil {
		return err
	}
	txn, err := apply.Coalesce(log.since(c.Durable()), 20<<10)
	if err != nil {
		return err
	}
	if txn != nil {
		err = c.Apply(ctx, txn)
	} else {
		c.Settle(c.Durable())
	}
	if err != nil {
		return fmt.Errorf("start %s from %s: %w", c.Start(), c.Durable(), err)
	}
	fmt.Println(c.Start(), log.end())
	ran := make(chan error)
	go func() { ran <- c.Run(ctx) }()
	for n := log.end(); n < len(log.txns); n++ {
		if err := log.append(n + 1); err != nil {
			return err
		}
		if err := c.Apply(ctx, log.txns[n]); err != nil {
			return err
		}
	}
	cancel()
	<-ran
	return errors.Join(c.Close(context.Background()), c.db.Close())
}

// A follower that is killed at any instant, again and again, while others read:
// the copy is always whole, readers never go back, nobody else can write, and at
// the end it holds what the source holds.
func TestKilledApplier(t *testing.T) {
	rng := seeded(t)
	kills, steps := 12, 6000
	if long() {
		kills, steps = 200, 100000
	}
	s, first := newSource(t, 1024, ledgerTables...)
	path := create(t, t.TempDir(), first)
	var txns []*walstream.Txn
	for range steps {
		txns = append(txns, s.step(t, transfer(rng)))
	}
	log := filepath.Join(t.TempDir(), "log")
	writeCrashLog(t, log, txns)
	readers := []*process{role(t, "reader", path, "keep")}
	crashes := 0
	for i := range kills {
		p := role(t, "applier", path, log)
		// Some die soon, at the start's own work, most in the middle of the stream.
		time.Sleep(time.Duration(rng.IntN(15000)) * time.Microsecond)
		p.cmd.Process.Kill()
		rest, _ := io.ReadAll(p.out)
		if err := p.cmd.Wait(); err == nil {
			t.Logf("done before kill %d: %s", i, rest)
			break
		} else if p.err.Len() > 0 {
			t.Fatalf("applier: %v %s", err, p.err)
		}
		crashes++
		if out, err := tryShell(path, "insert into meta values(1)"); err == nil || !strings.Contains(out, "readonly") {
			t.Fatalf("a write on the copy of a dead follower: %v %s", err, out)
		}
		if i%5 == 4 { // nobody has it open: the next one recovers from the WAL alone
			for _, r := range readers {
				r.end(t)
			}
			readers = nil
			if got := shell(t, path, "pragma integrity_check"); got != "ok" {
				t.Fatal(got)
			}
		} else if i%5 == 0 {
			readers = append(readers, role(t, "reader", path, "keep"), role(t, "reader", path, "mmap"))
		}
	}
	p := role(t, "applier", path, log)
	p.end(t)
	for _, r := range readers {
		r.end(t)
	}
	t.Logf("%d kills", crashes)
	same(t, s, path, "select * from entry", "select * from account", "select * from meta")
	c := open(t, path, nil)
	if c.Start() != apply.StartClean || c.Applied() != s.pos {
		t.Fatalf("start %s at %s, want %s", c.Start(), c.Applied(), s.pos)
	}
}
