package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// #include <errno.h>
// #include <signal.h>
// static void lsnode_wake(int sig) { (void)sig; }
// static int lsnode_wake_signal(void) {
//   struct sigaction sa = {0};
//   sa.sa_handler = lsnode_wake;
//   sa.sa_flags = SA_ONSTACK;
//   sigemptyset(&sa.sa_mask);
//   int sig = SIGRTMIN + 13;
//   return sigaction(sig, &sa, 0) ? -errno : sig;
// }
import "C"

// The lock bytes in the -shm file.
const (
	LockWrite      = 120 // the one writer
	LockCheckpoint = 121 // the one checkpointer
	LockRecover    = 122 // the index is being rebuilt
	lockRead0      = 123
	LockDMS        = 128 // shared by all who have the -shm open ("dead man switch")
)

// LockRead returns the byte of read lock i, 0 to 4. Readers of lock 0 ignore
// the WAL; those of the others read up to the mark of the same number.
func LockRead(i int) int64 { return lockRead0 + int64(i) }

// TryLock takes an OFD lock on n bytes from off, or returns false if somebody
// else (not another user of the same *os.File) has one that conflicts. A lock
// that shm has there already is replaced: shared by exclusive or the reverse.
func TryLock(shm *os.File, off, n int64, exclusive bool) (bool, error) {
	err := fcntl(shm, unix.F_OFD_SETLK, flock(off, n, exclusive))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return false, nil
	}
	return false, fmt.Errorf("lock byte %d of %s: %w", off, shm.Name(), err)
}

// Lock is TryLock that waits, in the kernel's queue, so that it is granted when
// the holder leaves, also against others who try again and again. When ctx ends
// it gives up and returns ctx's error; the lock is then not held. The waiting
// thread is told by a signal (SIGRTMIN+13), whose handler Lock installs: the Go
// runtime's own handlers make the kernel go on waiting.
func Lock(ctx context.Context, shm *os.File, off, n int64, exclusive bool) error {
	if ok, err := TryLock(shm, off, n, exclusive); ok || err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("lock byte %d of %s: %w", off, shm.Name(), context.Cause(ctx))
	}
	sig := int(C.lsnode_wake_signal())
	if sig < 0 {
		return fmt.Errorf("lock byte %d of %s: install wake signal: %w", off, shm.Name(), unix.Errno(-sig))
	}
	tids, done := make(chan int, 1), make(chan error, 1)
	// The thread stays with the wait, so that the wake signal can only reach it.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tids <- unix.Gettid()
		done <- waitLock(ctx, shm, flock(off, n, exclusive))
	}()
	tid := <-tids

	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = interrupt(tid, unix.Signal(sig), done)
		if err == nil { // granted at the last moment
			err = errors.Join(ctx.Err(), Unlock(shm, off, n))
		}
	}
	if err != nil {
		return fmt.Errorf("lock byte %d of %s: %w", off, shm.Name(), err)
	}
	return nil
}

// waitLock blocks in the kernel until the lock is granted, or a signal comes
// while ctx has ended. Other signals of the Go runtime restart the wait.
func waitLock(ctx context.Context, shm *os.File, lk unix.Flock_t) error {
	for {
		err := fcntl(shm, unix.F_OFD_SETLKW, lk)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// interrupt signals the waiting thread until its wait has ended: one signal may
// come just before the thread enters the kernel, and be lost.
func interrupt(tid int, sig unix.Signal, done <-chan error) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		// An error can only mean that the thread is gone, and done is filled.
		_ = unix.Tgkill(os.Getpid(), tid, sig)
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
	}
}

// Unlock gives up what shm has locked in n bytes from off. It is no error if
// that is nothing.
func Unlock(shm *os.File, off, n int64) error {
	lk := unix.Flock_t{Type: unix.F_UNLCK, Whence: io.SeekStart, Start: off, Len: n}
	if err := fcntl(shm, unix.F_OFD_SETLK, lk); err != nil {
		return fmt.Errorf("unlock byte %d of %s: %w", off, shm.Name(), err)
	}
	return nil
}

// Holder tells whether somebody else holds a lock on the byte at off, and which
// process: -1 if it is an OFD lock, as lsnode's own are.
func Holder(shm *os.File, off int64) (pid int, held bool, err error) {
	lk := flock(off, 1, true)
	if err := fcntlGet(shm, &lk); err != nil {
		return 0, false, fmt.Errorf("find holder of byte %d of %s: %w", off, shm.Name(), err)
	}
	return int(lk.Pid), lk.Type != unix.F_UNLCK, nil
}

func flock(off, n int64, exclusive bool) unix.Flock_t {
	lk := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: off, Len: n}
	if exclusive {
		lk.Type = unix.F_WRLCK
	}
	return lk
}

func fcntl(f *os.File, cmd int, lk unix.Flock_t) error {
	return unix.FcntlFlock(f.Fd(), cmd, &lk)
}

func fcntlGet(f *os.File, lk *unix.Flock_t) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, lk)
}
