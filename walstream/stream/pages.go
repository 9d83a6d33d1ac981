package stream

import (
	"encoding/binary"
	"fmt"

	"github.com/pierrec/lz4/v4"

	"github.com/lsnode/lsnode/walstream"
)

// A pages frame is a row of pages in ascending order, each
//
//	page number 4 | length, highest bit: LZ4 block, else raw 4 | data
//
// as in the records of the log.
const lz4Bit = 1 << 31

func appendPage(b []byte, c *lz4.Compressor, no uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, no)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	start := len(b)
	b = append(b, data...)
	// The room is one byte less than the page: what does not get smaller is raw.
	n, err := c.CompressBlock(data, b[start:start+len(data)-1])
	if err == nil && n > 0 {
		binary.BigEndian.PutUint32(b[start-4:], uint32(n)|lz4Bit)
		return b[:start+n]
	}
	copy(b[start:], data)
	return b
}

// decodePages calls f for each page of a frame; data is valid during the call.
// buf is as long as the page size. Page numbers ascend from after on, up to
// count. It returns the last one.
func decodePages(b, buf []byte, after, count uint32, f func(no uint32, data []byte) error) (uint32, error) {
	r := &reader{b: b}
	for len(r.b) > 0 {
		no, word := r.u32(), r.u32()
		size := int(word &^ lz4Bit)
		data := r.take(size)
		switch {
		case r.err != nil:
			return 0, r.err
		case no <= after || no > count:
			return 0, fmt.Errorf("%w: page %d after %d of %d", walstream.ErrCorrupt, no, after, count)
		case word&lz4Bit == 0 && size != len(buf), size > len(buf):
			return 0, fmt.Errorf("%w: page %d has %d bytes", walstream.ErrCorrupt, no, size)
		}
		if word&lz4Bit != 0 {
			n, err := lz4.UncompressBlock(data, buf)
			if err != nil || n != len(buf) {
				return 0, fmt.Errorf("decompress page %d: %w", no, walstream.ErrCorrupt)
			}
			data = buf
		}
		if err := f(no, data); err != nil {
			return 0, err
		}
		after = no
	}
	return after, nil
}
