package walstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"
)

// header returns a valid header of a transaction of n pages of 4096 bytes.
func header(n uint32) Header {
	return Header{
		Database:  "app",
		Kind:      KindPages,
		PageSize:  4096,
		PageCount: n,
		Time:      time.UnixMilli(1_700_000_000_123).UTC(),
		Pre:       Position{1, 7, ChecksumFlag | 7},
		Post:      Position{1, 9, ChecksumFlag | 9},
		Place: Place{
			BootID: [16]byte{1, 2, 3}, Device: 4, Inode: 5,
			Salt: [2]uint32{6, 7}, Frame: 8, FrameCk: [2]uint32{9, 10},
		},
	}
}

// walk returns a walk over these pages.
func walk(pages []Page) Pages {
	return func(yield func(Page, error) bool) {
		for _, p := range pages {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// pages returns n pages of the given size; every third is incompressible.
func pages(n, size int) []Page {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	out := make([]Page, n)
	for i := range out {
		data := bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4)
		if i%3 == 0 {
			for j := range data {
				data[j] = byte(rnd.Uint32())
			}
		}
		out[i] = Page{No: uint32(i + 1), Data: data}
	}
	return out
}

func collect(t *testing.T, p Pages) []Page {
	t.Helper()
	var out []Page
	for page, err := range p {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Page{page.No, bytes.Clone(page.Data)})
	}
	return out
}

func encode(t *testing.T, txn *Txn) [][]byte {
	t.Helper()
	var records [][]byte
	err := Encode(txn, func(b []byte) error {
		records = append(records, bytes.Clone(b))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func TestEncodeRoundTrip(t *testing.T) {
	for _, size := range []int{512, 4096, 65536} {
		for _, n := range []int{0, 1, 3, 700} {
			if n*size > 8<<20 {
				n = 8 << 20 / size
			}
			h := header(uint32(n) + 1)
			h.PageSize = uint32(size)
			want := pages(n, size)
			txn := &Txn{Header: h, Pages: walk(want)}
			records := encode(t, txn)
			if n*size > 4*recordPayload && len(records) < 2 {
				t.Errorf("%d pages of %d: %d records", n, size, len(records))
			}
			var seq Sequence
			var got []Page
			for i, b := range records {
				if len(b) > recordPayload+size+maxHeaderSize+RecordHeaderSize+pageHeader {
					t.Errorf("record of %d bytes", len(b))
				}
				r, err := DecodeRecord(b)
				if err != nil {
					t.Fatal(err)
				}
				done, err := seq.Add(r)
				if err != nil || done != (i == len(records)-1) {
					t.Fatalf("part %d of %d: done %v, %v", i, len(records), done, err)
				}
				if done && r.Header != h {
					t.Errorf("header is %+v, want %+v", r.Header, h)
				}
				got = append(got, collect(t, r.Pages)...)
			}
			if len(got) != len(want) || (n > 0 && !reflect.DeepEqual(got, want)) {
				t.Errorf("%d pages of %d differ", n, size)
			}
		}
	}
}

func TestEncodeReadsChecksumAfterTheWalk(t *testing.T) {
	txn := &Txn{Header: header(3000)}
	want := pages(200, 4096)
	txn.Pages = func(yield func(Page, error) bool) {
		txn.Post.Checksum = 0
		walk(want)(yield)
		txn.Post.Checksum = ChecksumFlag | 42
	}
	records := encode(t, txn)
	for i, b := range records {
		r, err := DecodeRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Post.Checksum; (got == ChecksumFlag|42) != r.Last || (got == 0) == r.Last {
			t.Errorf("part %d of %d: checksum %v", i, len(records), got)
		}
	}
	one, ok, err := EncodeOne(txn, MaxRecordSize)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	got, err := Decode(one)
	if err != nil || got.Post.Checksum != ChecksumFlag|42 {
		t.Errorf("checksum %v, %v", got.Post.Checksum, err)
	}
}

func TestEncodeOneFits(t *testing.T) {
	txn := &Txn{Header: header(10), Pages: walk(pages(10, 4096))}
	b, ok, err := EncodeOne(txn, MaxRecordSize)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, tt := range []struct {
		max  int
		want bool
	}{{len(b), true}, {len(b) - 1, false}, {0, false}} {
		if _, ok, err := EncodeOne(txn, tt.max); ok != tt.want || err != nil {
			t.Errorf("max %d: %v, %v", tt.max, ok, err)
		}
	}
	big := &Txn{Header: header(3000), Pages: walk(pages(1200, 4096))}
	if _, ok, err := EncodeOne(big, 1<<30); ok || err != nil {
		t.Errorf("longer than a record may be: %v, %v", ok, err)
	}
	if _, err := Decode(encode(t, big)[0]); !errors.Is(err, ErrTorn) {
		t.Errorf("decode a part: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	errWalk := errors.New("disk")
	page := Page{1, make([]byte, 4096)}
	for name, tt := range map[string]struct {
		change func(*Txn)
		want   error
	}{
		"name":            {func(x *Txn) { x.Database = "a/b" }, ErrHeader},
		"kind":            {func(x *Txn) { x.Kind = 9 }, ErrHeader},
		"page size":       {func(x *Txn) { x.PageSize = 1000 }, ErrHeader},
		"no pages after":  {func(x *Txn) { x.PageCount = 0 }, ErrHeader},
		"TXID stays":      {func(x *Txn) { x.Post.TXID = x.Pre.TXID }, ErrHeader},
		"epoch falls":     {func(x *Txn) { x.Post.Epoch = 0 }, ErrHeader},
		"base with pre":   {func(x *Txn) { x.Kind = KindBase }, ErrHeader},
		"epoch with TXID": {func(x *Txn) { x.Kind, x.Post.Epoch = KindEpoch, 2 }, ErrHeader},
		"page 0":          {func(x *Txn) { x.Pages = walk([]Page{{0, page.Data}}) }, errPage},
		"page beyond":     {func(x *Txn) { x.Pages = walk([]Page{{6, page.Data}}) }, errPage},
		"page twice":      {func(x *Txn) { x.Pages = walk([]Page{page, page}) }, errPage},
		"page short":      {func(x *Txn) { x.Pages = walk([]Page{{1, page.Data[:9]}}) }, errPage},
		"walk":            {func(x *Txn) { x.Pages = func(y func(Page, error) bool) { y(Page{}, errWalk) } }, errWalk},
	} {
		txn := &Txn{Header: header(5), Pages: walk([]Page{page})}
		tt.change(txn)
		if err := Encode(txn, func([]byte) error { return nil }); !errors.Is(err, tt.want) {
			t.Errorf("%s: Encode: %v", name, err)
		}
		if _, _, err := EncodeOne(txn, 1<<20); !errors.Is(err, tt.want) {
			t.Errorf("%s: EncodeOne: %v", name, err)
		}
	}
	errEmit := errors.New("emit")
	txn := &Txn{Header: header(5), Pages: walk(nil)}
	if err := Encode(txn, func([]byte) error { return errEmit }); err != errEmit {
		t.Errorf("emit: %v", err)
	}
}

// smallRecord returns a record of two pages of 512 bytes.
func smallRecord(t testing.TB) []byte {
	h := header(5)
	h.PageSize = 512
	b, ok, err := EncodeOne(&Txn{Header: h, Pages: walk(pages(2, 512))}, MaxRecordSize)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	return b
}

func TestDecodeRecordDamaged(t *testing.T) {
	b := smallRecord(t)
	for i := range b {
		if _, err := DecodeRecord(b[:i]); !errors.Is(err, ErrTorn) {
			t.Fatalf("cut to %d of %d bytes: %v", i, len(b), err)
		}
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		if _, err := DecodeRecord(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d of %d changed: %v", i, len(b), err)
		}
	}
	if _, err := DecodeRecord(append(bytes.Clone(b), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := DecodeRecord(make([]byte, 100)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("zeros: %v", err)
	}
}

// seal makes the check sums of a changed record right again.
func seal(b []byte) []byte {
	if len(b) < RecordHeaderSize {
		return b
	}
	binary.BigEndian.PutUint32(b[16:], uint32(len(b)-RecordHeaderSize))
	binary.BigEndian.PutUint32(b[20:], crc32.Checksum(b[RecordHeaderSize:], castagnoli))
	binary.BigEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	return b
}

// What a hostile or broken writer may send under a right check sum.
func TestDecodeRecordStructure(t *testing.T) {
	pagesAt := RecordHeaderSize + 1 + 3 + headerFixed
	for name, tt := range map[string]struct {
		change func(b []byte) []byte
		want   error
	}{
		"version":      {func(b []byte) []byte { b[4] = 2; return b }, ErrVersion},
		"flags":        {func(b []byte) []byte { b[5] = 7; return b }, ErrCorrupt},
		"part":         {func(b []byte) []byte { b[11] = 1; return b }, ErrCorrupt},
		"hash":         {func(b []byte) []byte { b[12]++; return b }, ErrCorrupt},
		"header short": {func(b []byte) []byte { b[7]--; return b }, ErrCorrupt},
		"header long":  {func(b []byte) []byte { b[6] = 0xff; return b }, ErrCorrupt},
		"kind":         {func(b []byte) []byte { b[RecordHeaderSize+4] = 2; return b }, ErrCorrupt},
		"name":         {func(b []byte) []byte { b[RecordHeaderSize+1] = '/'; return b }, ErrCorrupt},
		"page 0":       {func(b []byte) []byte { b[pagesAt+3] = 0; return b }, ErrCorrupt},
		"page beyond":  {func(b []byte) []byte { b[pagesAt+3] = 6; return b }, ErrCorrupt},
		"page length":  {func(b []byte) []byte { b[pagesAt+5] = 1; return b }, ErrCorrupt},
		"page short":   {func(b []byte) []byte { b[pagesAt+7]--; return b }, ErrCorrupt},
		"page cut":     {func(b []byte) []byte { return b[:len(b)-1] }, ErrCorrupt},
		"header cut":   {func(b []byte) []byte { return b[:pagesAt+5] }, ErrCorrupt},
	} {
		if _, err := DecodeRecord(seal(tt.change(smallRecord(t)))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	b := smallRecord(t)
	b[len(b)-1] ^= 0xff // in the second page, which is compressed
	b[len(b)-2] ^= 0xff
	r, err := DecodeRecord(seal(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, err = range r.Pages {
	}
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged block: %v", err)
	}
}

func TestSequence(t *testing.T) {
	txn := &Txn{Header: header(3000), Pages: walk(pages(400, 4096))}
	var rs []*Record
	for _, b := range encode(t, txn) {
		r, err := DecodeRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	if len(rs) < 3 {
		t.Fatalf("%d records", len(rs))
	}
	other := *rs[1]
	other.Post.TXID++
	back := *rs[1]
	back.minNo = 1
	for name, parts := range map[string][]*Record{
		"begins late":        {rs[1]},
		"one missing":        {rs[0], rs[2]},
		"one twice":          {rs[0], rs[0]},
		"other transaction":  {rs[0], &other},
		"pages go backwards": {rs[0], &back},
	} {
		var seq Sequence
		var err error
		for _, r := range parts {
			_, err = seq.Add(r)
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	zero := Header{Database: "x", Kind: KindBase}
	epoch := header(9)
	epoch.Kind, epoch.Post = KindEpoch, Position{2, 7, epoch.Pre.Checksum}
	for _, h := range []Header{header(9), zero, epoch} {
		got, err := ParseHeader(AppendHeader(nil, &h))
		if err != nil || got != h {
			t.Errorf("got %+v, %v\nwant %+v", got, err, h)
		}
	}
	if _, err := ParseHeader(nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("parse nothing: %v", err)
	}
}

// No input panics, makes a large allocation, or is taken for what no writer
// makes: what decodes encodes to a record of the same content.
func FuzzDecodeRecord(f *testing.F) {
	b := smallRecord(f)
	f.Add(b, false)
	f.Add(b[:40], true)
	f.Add([]byte("LSTX"), false)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix {
			b = seal(bytes.Clone(b))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := DecodeRecord(b)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Fatalf("%d bytes allocated for %d", n, len(b))
		}
		if err != nil {
			if !errors.Is(err, ErrTorn) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		txn := &Txn{Header: r.Header, Pages: r.Pages}
		again, ok, err := EncodeOne(txn, MaxRecordSize)
		if errors.Is(err, ErrCorrupt) || (err == nil && !ok) || !r.First || !r.Last {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := DecodeRecord(again)
		if err != nil || s.Header != r.Header || s.nPages != r.nPages {
			t.Fatalf("encoded again: %v", err)
		}
	})
}

func BenchmarkEncodeOne(b *testing.B) {
	txn := &Txn{Header: header(10), Pages: walk(pages(4, 4096))}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := EncodeOne(txn, MaxRecordSize); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	r, _, _ := EncodeOne(&Txn{Header: header(10), Pages: walk(pages(4, 4096))}, MaxRecordSize)
	b.ReportAllocs()
	for b.Loop() {
		txn, err := Decode(r)
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range txn.Pages {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
