package txlog

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// memFS is a directory in memory that can lose what was not synced, run full
// and fail. Its zero value is not usable; newMemFS makes one.
type memFS struct {
	mu      sync.Mutex
	files   map[string]*memFile
	durable map[string]*memFile // the names as of the last SyncDir

	room     int   // bytes that can still be written; negative: no bound
	syncErr  error // what Sync returns
	truncErr error // what Truncate returns

	countdown int        // operations until the crash; 0: none planned
	rnd       *rand.Rand // decides what a crash leaves
	crashed   *memFS     // what the planned crash left
}

// newMemFS makes an empty directory; its own random source is seeded from rnd.
func newMemFS(rnd *rand.Rand) *memFS {
	own := rand.New(rand.NewPCG(rnd.Uint64(), 2))
	return &memFS{files: map[string]*memFile{}, durable: map[string]*memFile{}, room: -1, rnd: own}
}

// memFile is a file of a memFS, whose lock guards it.
type memFile struct {
	fs     *memFS
	data   []byte
	synced []byte // as of the last Sync
	// lost are the bytes that a failed Sync dropped, as the kernel does: they
	// look clean in its cache, and no later Sync writes them.
	lost map[int]bool
}

func newMemFile(m *memFS, b []byte) *memFile {
	return &memFile{fs: m, data: slices.Clone(b), synced: slices.Clone(b)}
}

var (
	_ fileSystem = (*memFS)(nil)
	_ file       = (*memFile)(nil)
)

// step counts an operation that changes something, and crashes when it is time.
func (m *memFS) step() {
	if m.countdown > 0 {
		if m.countdown--; m.countdown == 0 {
			m.crashed = m.crashLocked()
		}
	}
}

// crash returns what a power loss would leave now.
func (m *memFS) crash() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.crashLocked()
}

func (m *memFS) crashLocked() *memFS {
	after := newMemFS(m.rnd)
	names := maps.Clone(m.durable)
	maps.Copy(names, m.files)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		now, was := m.files[name], m.durable[name]
		f := was
		if now != was && m.rnd.IntN(2) == 0 {
			f = now
		}
		if f != nil {
			b := f.afterCrash(m.rnd)
			after.files[name] = newMemFile(after, b)
		}
	}
	after.durable = maps.Clone(after.files)
	return after
}

// afterCrash returns the file's content with any of the blocks written since
// the last sync, and garbage in some.
func (f *memFile) afterCrash(rnd *rand.Rand) []byte {
	const block = 256
	low, high := len(f.synced), len(f.data)
	if low > high {
		low, high = high, low
	}
	out := make([]byte, low+rnd.IntN(high-low+1))
	switch rnd.IntN(3) {
	case 0:
		out = out[:low]
	case 1:
		out = make([]byte, high)
	}
	for at := 0; at < len(out); at += block {
		end := min(at+block, len(out))
		now, was := stretch(f.data, at, end), stretch(f.synced, at, end)
		copy(out[at:end], was)
		if slices.Equal(now, was) {
			continue
		}
		switch n := rnd.IntN(40); {
		case n < 30:
			copy(out[at:end], now)
		case n == 39:
			// Not over what was synced: disks write whole sectors or nothing.
			for i := max(at, len(f.synced)); i < end; i++ {
				out[i] = byte(rnd.Uint32())
			}
		}
	}
	return out
}

func stretch(b []byte, from, to int) []byte {
	return append(slices.Clone(b[min(from, len(b)):min(to, len(b))]), make([]byte, max(0, to-max(from, len(b))))...)
}

func (m *memFS) Create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step()
	if m.files[name] != nil {
		return nil, fs.ErrExist
	}
	m.files[name] = &memFile{fs: m}
	return m.files[name], nil
}

func (m *memFS) Open(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files[name] == nil {
		return nil, fs.ErrNotExist
	}
	return m.files[name], nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step()
	delete(m.files, name)
	return nil
}

func (m *memFS) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.files)), nil
}

func (m *memFS) SyncDir() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.durable = maps.Clone(m.files)
	m.step()
	return nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.step()
	var err error
	if room := f.fs.room; room >= 0 && len(b) > room {
		b, err = b[:room], unix.ENOSPC
	}
	if f.fs.room >= 0 {
		f.fs.room -= len(b)
	}
	if need := int(off) + len(b); need > len(f.data) {
		f.data = append(f.data, make([]byte, need-len(f.data))...)
	}
	copy(f.data[off:], b)
	if len(f.lost) > 0 {
		for i := range b {
			delete(f.lost, int(off)+i)
		}
	}
	return len(b), err
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.step()
	if f.fs.truncErr != nil {
		return f.fs.truncErr
	}
	if size > int64(len(f.data)) {
		return errors.New("truncate only shortens")
	}
	f.data = slices.Clone(f.data[:size])
	maps.DeleteFunc(f.lost, func(i int, _ bool) bool { return i >= int(size) })
	return nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.syncErr != nil {
		for i, b := range f.data {
			if i >= len(f.synced) || f.synced[i] != b {
				f.lose(i)
			}
		}
		return f.fs.syncErr
	}
	was := f.synced
	f.synced = slices.Clone(f.data)
	for i := range f.lost {
		copy(f.synced[i:i+1], stretch(was, i, i+1))
	}
	f.fs.step()
	return nil
}

func (f *memFile) lose(i int) {
	if f.lost == nil {
		f.lost = map[int]bool{}
	}
	f.lost[i] = true
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *memFile) Close() error { return nil }
