package capture_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

func TestDebugStall(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	wait := startApp(t, appSpec{Path: w.path, Workload: "small", Txns: 30000, Auto: -1, Checkpoints: 50, Seed: newSeed(t)})
	done := make(chan struct{})
	go func() {
		last, at := uint64(0), time.Now()
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if n := w.c.Stats().Transactions; n != last {
				last, at = n, time.Now()
			} else if time.Since(at) > 1500*time.Millisecond {
				h, ok := w.db.Index().Header()
				fmt.Printf("STALL %+v %v backfill %d place %+v stats %+v\n", h, ok, w.db.Index().Backfill(), w.c.Place(), w.c.Stats())
				for i := range 5 {
					m, used := w.db.Index().ReadMark(i)
					pid, held, _ := sqlitefile.Holder(w.db.Shm(), sqlitefile.LockRead(i))
					fmt.Println("read", i, m, used, pid, held)
				}
				for _, b := range []int64{120, 121, 122} {
					pid, held, _ := sqlitefile.Holder(w.db.Shm(), b)
					fmt.Println("lock", b, pid, held, os.Getpid())
				}
				buf := make([]byte, 1<<20)
				fmt.Println(string(buf[:runtime.Stack(buf, true)]))
				os.Exit(3)
			}
		}
	}()
	r := wait()
	close(done)
	fmt.Println(r.Slowest, r.Checkpoint, w.c.Stats())
	w.finish(r.IDs)
}
