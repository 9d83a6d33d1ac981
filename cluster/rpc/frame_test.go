package rpc

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var sampleFrame = frame{kind: kindRequest, call: 7, timeout: 1500 * time.Millisecond, name: "greet", body: []byte(`{"a":1}`)}

// sampleBytes is sampleFrame: the format, byte by byte.
const sampleBytes = "\x00\x00\x00\x1b" + // length 27
	"\x01\x01" + // version, request
	"\x00\x00\x00\x00\x00\x00\x00\x07" + // call
	"\x00\x00\x05\xdc" + // 1500 ms
	"\x05greet" + `{"a":1}`

func encode(t *testing.T, f frame) []byte {
	t.Helper()
	b, err := appendFrame(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFrameFormat(t *testing.T) {
	if got := encode(t, sampleFrame); string(got) != sampleBytes {
		t.Errorf("got  %q\nwant %q", got, sampleBytes)
	}
	got, err := readFrame(iotest.OneByteReader(strings.NewReader(sampleBytes)))
	if err != nil || !reflect.DeepEqual(got, sampleFrame) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFrameTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 0, -time.Second: 0, 1: time.Millisecond, 1001 * time.Microsecond: 2 * time.Millisecond,
		1 << 62: (1<<32 - 1) * time.Millisecond,
	} {
		f, err := readFrame(bytes.NewReader(encode(t, frame{kind: kindRequest, timeout: timeout})))
		if err != nil || f.timeout != want {
			t.Errorf("%v becomes %v, want %v (%v)", timeout, f.timeout, want, err)
		}
	}
}

// TestFrameEndings: each way in which a stream can end is told apart.
func TestFrameEndings(t *testing.T) {
	for n := range len(sampleBytes) {
		_, err := readFrame(strings.NewReader(sampleBytes[:n]))
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Errorf("cut at %d: %v, want %v", n, err, want)
		}
	}
	broken := errors.New("broken")
	if _, err := readFrame(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("I/O error: %v", err)
	}
	change := func(at int, to byte) string {
		b := []byte(sampleBytes)
		b[at] = to
		return string(b)
	}
	for what, text := range map[string]string{
		"version": change(4, 2), "kind 0": change(5, 0), "kind 4": change(5, 4), "name too long": change(18, 200),
		"length 0": "\x00\x00\x00\x00", "length 14": "\x00\x00\x00\x0e" + strings.Repeat("x", 14),
		"length beyond the bound": "\x00\x40\x00\x01", "longest length": "\xff\xff\xff\xff",
	} {
		if _, err := readFrame(strings.NewReader(text)); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestFrameLimits(t *testing.T) {
	if _, err := appendFrame(nil, frame{body: make([]byte, MaxFrame-headSize+1)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("body: %v", err)
	}
	if _, err := appendFrame(nil, frame{name: strings.Repeat("x", 256)}); err == nil {
		t.Error("a name of 256 bytes was accepted")
	}
	largest := frame{kind: kindResponse, body: bytes.Repeat([]byte("x"), MaxFrame-headSize)}
	got, err := readFrame(bytes.NewReader(encode(t, largest)))
	if err != nil || !bytes.Equal(got.body, largest.body) {
		t.Errorf("largest: %d bytes, %v", len(got.body), err)
	}
}

// TestLengthAloneAllocatesLittle: a peer that promises four megabytes and sends
// none does not make us hold four megabytes.
func TestLengthAloneAllocatesLittle(t *testing.T) {
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = readFrame(strings.NewReader("\x00\x40\x00\x00\x01\x01"))
		}
	})
	if got := result.AllocedBytesPerOp(); got > 2*firstRead {
		t.Errorf("%d bytes", got)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte(sampleBytes))
	f.Add([]byte(sampleBytes + sampleBytes))
	f.Add([]byte("\x00\x00\x00\x0f\x01\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := appendFrame(nil, got)
		if err != nil || !bytes.Equal(again, data[:len(again)]) {
			t.Errorf("%q becomes %q, %v", data, again, err)
		}
	})
}
