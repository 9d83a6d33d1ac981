package pagesum

import (
	"fmt"
	"maps"
	"slices"

	"github.com/lsnode/lsnode/walstream"
)

// Flush makes the table, as it is at the call, durable as that of pos. The
// caller sees to it that the table is at pos at that moment, and that the log
// has pos on disk. Other methods need not wait for it. After an error (a full
// disk) the file is still good for the position of the last flush, nothing in
// memory is lost, and Flush can be tried again. A table without a file has
// nothing to do.
func (t *Table) Flush(pos walstream.Position) error {
	return t.flush(func() walstream.Position { return pos }, nil)
}

// FlushCurrent makes the table durable as that of [Table.Current], while others
// may go on committing to it. Before anything is written it calls synced with
// that position, which returns once the log has it on disk.
func (t *Table) FlushCurrent(synced func(walstream.Position) error) error {
	return t.flush(func() walstream.Position { return t.mu.current }, synced)
}

// cut is what one flush writes.
type cut struct {
	slot   slot
	blocks map[uint32][]walstream.Checksum
}

func (t *Table) flush(at func() walstream.Position, synced func(walstream.Position) error) error {
	if t.file == nil {
		return nil
	}
	t.flushing.Lock()
	defer t.flushing.Unlock()
	c := t.cut(at)
	if len(c.blocks) == 0 && t.file.last.sequence > 0 && c.slot.position == t.file.last.position {
		return nil
	}
	if err := t.write(c, synced); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		for b := range c.blocks {
			t.mu.dirty[b] = struct{}{}
		}
		return fmt.Errorf("flush page checksums: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.position = c.slot.position
	return nil
}

// cut copies what has changed since the last flush.
func (t *Table) cut(at func() walstream.Position) cut {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := cut{
		slot:   slot{pageSize: t.pageSize, pageCount: uint32(len(t.mu.sums)), position: at()},
		blocks: make(map[uint32][]walstream.Checksum, len(t.mu.dirty)),
	}
	for b := range t.mu.dirty {
		// A block beyond the end means nothing any more.
		if first := int(b) * blockEntries; first < len(t.mu.sums) {
			c.blocks[b] = slices.Clone(t.mu.sums[first:min(first+blockEntries, len(t.mu.sums))])
		}
	}
	clear(t.mu.dirty)
	return c
}

func (t *Table) write(c cut, synced func(walstream.Position) error) error {
	if synced != nil {
		if err := synced(c.slot.position); err != nil {
			return err
		}
	}
	for _, b := range slices.Sorted(maps.Keys(c.blocks)) {
		if err := t.file.writeBlock(b, c.blocks[b]); err != nil {
			return err
		}
	}
	return t.file.commit(c.slot)
}
