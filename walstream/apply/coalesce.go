package apply

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/lsnode/lsnode/walstream"
)

// ErrNotOneLine is wrapped by what [Coalesce] returns if the transactions can't
// be one: a gap, another page size, or a log that starts anew.
var ErrNotOneLine = errors.New("transactions do not follow each other")

// DefaultCoalesceMemory is how many bytes of pages Coalesce holds by default.
const DefaultCoalesceMemory = 64 << 20

// Coalesce makes one transaction of many that follow each other: the newest
// image of each page that is left at the end. It returns nil if there are none.
//
// It holds at most memory bytes of pages (0: [DefaultCoalesceMemory]) and a few
// bytes for each page number. More pages than that are read by walking over txns
// again, several times: txns must give the same each time; what it may give in
// addition at the end is left out. The result is of KindEpoch if there are no pages in
// any of them.
func Coalesce(txns iter.Seq2[*walstream.Txn, error], memory int) (*walstream.Txn, error) {
	if memory <= 0 {
		memory = DefaultCoalesceMemory
	}
	c := &coalescer{txns: txns, memory: memory, newest: map[uint32]int{}, images: map[uint32][]byte{}}
	if err := c.read(); err != nil {
		return nil, fmt.Errorf("coalesce transactions: %w", err)
	}
	if c.count == 0 {
		return nil, nil
	}
	return &walstream.Txn{Header: c.header, Pages: c.pages()}, nil
}

type coalescer struct {
	txns   iter.Seq2[*walstream.Txn, error]
	memory int

	header walstream.Header
	count  int               // transactions read
	newest map[uint32]int    // page: which transaction has its newest image
	images map[uint32][]byte // page: that image; nil once memory does not suffice
	held   int               // bytes in images
}

// read is the first walk: it finds where the newest image of each page is, and
// keeps the images as long as there is room.
func (c *coalescer) read() error {
	for t, err := range c.txns {
		if err != nil {
			return err
		}
		if err := c.follow(&t.Header); err != nil {
			return err
		}
		c.count++
		if t.Kind != walstream.KindPages {
			continue
		}
		for p, err := range t.Pages {
			if err != nil {
				return fmt.Errorf("read pages of %s: %w", t.Post, err)
			}
			if p.No == 0 || p.No > t.PageCount || len(p.Data) != int(t.PageSize) {
				return fmt.Errorf("%w: page %d of %d bytes in %s", ErrMalformed, p.No, len(p.Data), t.Post)
			}
			c.newest[p.No] = c.count
			c.keep(p)
		}
		c.header.Post = t.Post // its checksum may be known only now
	}
	return nil
}

// follow joins the header of the next transaction to what there is.
func (c *coalescer) follow(h *walstream.Header) error {
	switch {
	case h.Kind != walstream.KindPages && h.Kind != walstream.KindEpoch:
		return fmt.Errorf("%w: a record of kind %d at %s", ErrNotOneLine, h.Kind, h.Post)
	case c.count == 0:
		c.header = *h
		c.header.Place = walstream.Place{}
		return nil
	case h.Database != c.header.Database, h.Pre != c.header.Post:
		return fmt.Errorf("%w: %s at %s after %s at %s", ErrNotOneLine, h.Database, h.Pre, c.header.Database, c.header.Post)
	}
	c.header.Post, c.header.Time = h.Post, h.Time
	if h.Kind == walstream.KindEpoch {
		return nil
	}
	if c.header.Kind == walstream.KindPages {
		if h.PageSize != c.header.PageSize {
			return fmt.Errorf("%w: page size %d after %d", ErrNotOneLine, h.PageSize, c.header.PageSize)
		}
		if h.PageCount < c.header.PageCount {
			c.cut(h.PageCount)
		}
	}
	c.header.Kind, c.header.PageSize, c.header.PageCount = h.Kind, h.PageSize, h.PageCount
	return nil
}

// cut forgets the pages beyond the end of a database that has become shorter:
// if it grows again, they come with new images.
func (c *coalescer) cut(pageCount uint32) {
	maps.DeleteFunc(c.newest, func(no uint32, _ int) bool { return no > pageCount })
	for no, image := range c.images {
		if no > pageCount {
			c.held -= len(image)
			delete(c.images, no)
		}
	}
}

func (c *coalescer) keep(p walstream.Page) {
	if c.images == nil {
		return
	}
	image, ok := c.images[p.No]
	if !ok {
		if c.held += len(p.Data); c.held > c.memory {
			c.images = nil
			return
		}
		image = make([]byte, len(p.Data))
		c.images[p.No] = image
	}
	copy(image, p.Data)
}

// pages walks over the result: from memory, or in parts that fit in it.
func (c *coalescer) pages() walstream.Pages {
	order := slices.Sorted(maps.Keys(c.newest))
	return func(yield func(walstream.Page, error) bool) {
		if c.images != nil {
			yieldAll(order, c.images, yield)
			return
		}
		part := max(c.memory/int(c.header.PageSize), 1)
		for pages := range slices.Chunk(order, part) {
			images, err := c.load(pages)
			if err != nil {
				yield(walstream.Page{}, err)
				return
			}
			if !yieldAll(pages, images, yield) {
				return
			}
		}
	}
}

func yieldAll(order []uint32, images map[uint32][]byte, yield func(walstream.Page, error) bool) bool {
	for _, no := range order {
		if !yield(walstream.Page{No: no, Data: images[no]}, nil) {
			return false
		}
	}
	return true
}

// load reads the newest images of some pages, given in order, by walking over
// the transactions again.
func (c *coalescer) load(pages []uint32) (map[uint32][]byte, error) {
	images := make(map[uint32][]byte, len(pages))
	first, last := pages[0], pages[len(pages)-1]
	n := 0
	for t, err := range c.txns {
		if err != nil {
			return nil, err
		}
		if n++; n > c.count {
			break
		}
		if t.Kind != walstream.KindPages {
			continue
		}
		for p, err := range t.Pages {
			if err != nil {
				return nil, fmt.Errorf("read pages of %s: %w", t.Post, err)
			}
			if p.No >= first && p.No <= last && c.newest[p.No] == n {
				images[p.No] = slices.Clone(p.Data)
			}
		}
	}
	if len(images) != len(pages) {
		return nil, fmt.Errorf("read pages again: %d of %d found: %w", len(images), len(pages), ErrNotOneLine)
	}
	return images, nil
}
