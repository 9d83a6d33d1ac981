package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// methodPages asks a node for pages of its copy.
const methodPages = "node.pages"

// pagesBytes bounds the pages of one answer.
const pagesBytes = 1 << 20

type pagesRequest struct {
	Database string   `json:"database"`
	Pages    []uint32 `json:"pages"`
}

type pagesAnswer struct {
	Pages map[uint32][]byte `json:"pages"` // those that it has
}

// errNoImage says that nobody has a page as it should be.
var errNoImage = errors.New("no other node, and no log, has these pages as they should be")

// mend has damaged pages repaired. On a follower that is begun only: whoever
// follows does it.
func (n *Node) mend(ctx context.Context, d *database, found *examined) error {
	if r := n.reign.Load(); r != nil {
		return n.mendPrimary(ctx, r, d, slices.Sorted(maps.Keys(found.damaged)))
	}
	if l := n.live.Load(); l != nil {
		l.each(func(f *following) {
			if f.d == d {
				f.distrust(found)
			}
		})
		return nil
	}
	return errors.New("no primary is known")
}

// distrust makes the follower repair its copy.
func (f *following) distrust(found *examined) {
	select {
	case f.damaged <- found:
	default: // it is about to
	}
}

// mend repairs the copy by the pages that differ; those that were found damaged
// are fetched whatever the table says. Until that has succeeded nothing else is
// applied, since the table says what the file holds and not what it should.
func (f *following) mend(ctx context.Context, found *examined) error {
	f.d.progress.become(api.StateRepairing, nil)
	also := slices.Collect(maps.Keys(found.damaged))
	for wait := retryFirst; ; wait = pause(ctx, wait) {
		err := f.d.repairWith(ctx, f.term.epoch, f.term.dial(f.term.primary), f.term.line, also)
		if err == nil {
			err = f.d.fence(ctx) // the mark too
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			f.d.progress.become(api.StateStreaming, nil)
			return nil
		}
		f.d.progress.become(api.StateRepairing, err)
		f.d.log.Warn("repair of damage was interrupted", "database", f.d.name, "primary", f.term.primary, "error", err, "retry_in", wait)
	}
}

// answerPages gives another node pages as they are here. That node knows what
// they have to be.
func (n *Node) answerPages(ctx context.Context, _ string, body []byte) (_ any, err error) {
	var request pagesRequest
	if err := rpc.Decode(body, &request); err != nil {
		return nil, err
	}
	d := n.known(request.Database)
	if d == nil {
		return nil, rpc.Errorf(rpc.CodeBadRequest, "%s: not known here", request.Database)
	}
	s, err := d.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	answer := pagesAnswer{Pages: map[uint32][]byte{}}
	for i, no := range request.Pages {
		if no == 0 || no > s.PageCount || i*int(s.PageSize) >= pagesBytes {
			continue
		}
		buf := make([]byte, s.PageSize)
		if err := s.ReadPage(no, buf); err != nil {
			return nil, err
		}
		if no == 1 {
			sqlitefile.Normalise(buf)
		}
		answer.Pages[no] = buf
	}
	return answer, nil
}

// mendPrimary puts pages of the primary's file back that were damaged. Writers
// are held meanwhile and everything they did is captured, so that the table says
// what each page has to be; an image from elsewhere is good if it is that, from
// whatever position it comes. The pages go through the WAL, as any commit does:
// readers stay on, and what capture ships of it changes nothing anywhere.
func (n *Node) mendPrimary(ctx context.Context, r *reign, d *database, damaged []uint32) (err error) {
	c := d.capturing()
	if c == nil {
		return api.ErrNotServed
	}
	images, err := n.images(ctx, d, damaged)
	if err != nil {
		return err
	}
	lock, err := c.Drain(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if !r.valid() {
		return errDeposed
	}
	pages, err := d.wrong(ctx, damaged)
	if err != nil || len(pages) == 0 {
		return err
	}
	w := sqlitefile.NewWriter(d.file.Files())
	if err := w.Acquire(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Release()) }()
	written := 0
	for _, no := range pages {
		image, ok := images[no]
		if !ok || len(image) != int(d.file.PageSize()) || pagesum.Page(no, image) != d.table.Get(no) {
			continue
		}
		if err := w.Page(no, image); err != nil {
			return err
		}
		written++
	}
	if written > 0 {
		if _, err := w.Commit(d.table.PageCount(), true); err != nil {
			return err
		}
		d.counts.Repairs.Inc()
		d.counts.RepairedPages.Add(float64(written))
		d.log.Warn("put damaged pages of the primary's file back", "database", d.name, "path", d.path, "pages", written)
	}
	if written < len(pages) {
		return fmt.Errorf("repair %s: %w: %d of %d", d.path, errNoImage, len(pages)-written, len(pages))
	}
	return nil
}

// capturing returns who captures, nil if nobody does.
func (d *database) capturing() *capture.Capture {
	d.content.Lock()
	defer d.content.Unlock()
	return d.capture
}

// wrong returns which of the pages are not what the table says. The write lock
// is held, and all is captured.
func (d *database) wrong(ctx context.Context, pages []uint32) (wrong []uint32, err error) {
	s, err := d.file.Snapshot(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	buf := make([]byte, s.PageSize())
	for _, no := range pages {
		if no <= d.table.PageCount() && examinePage(no, s.PageCount(), d.table.Get(no), buf, s.ReadPage) != "" {
			wrong = append(wrong, no)
		}
	}
	return wrong, nil
}

// images gets pages as they should be: from other nodes, else from this node's
// log.
func (n *Node) images(ctx context.Context, d *database, pages []uint32) (map[uint32][]byte, error) {
	images := map[uint32][]byte{}
	lacking := func() (rest []uint32) {
		for _, no := range pages {
			if image, ok := images[no]; !ok || pagesum.Page(no, image) != d.table.Get(no) {
				rest = append(rest, no)
			}
		}
		return rest
	}
	for id := range n.cluster.State().Nodes {
		if id == n.cluster.Self() || !n.cluster.Alive(id) {
			continue
		}
		for part := range slices.Chunk(lacking(), max(1, pagesBytes/int(d.file.PageSize()))) {
			var answer pagesAnswer
			if err := n.cluster.Call(ctx, id, methodPages, pagesRequest{Database: d.name, Pages: part}, &answer); err != nil {
				d.log.Warn("a node can't give pages for a repair", "database", d.name, "node", id, "error", err)
				break
			}
			maps.Copy(images, answer.Pages)
		}
	}
	rest := lacking()
	if len(rest) == 0 {
		return images, nil
	}
	wanted := map[uint32]bool{}
	for _, no := range rest {
		wanted[no] = true
	}
	return images, d.fromLog(wanted, images)
}

// fromLog adds the newest images that the log has of pages.
func (d *database) fromLog(wanted map[uint32]bool, images map[uint32][]byte) error {
	all, err := apply.Coalesce(d.txlog.Since(d.name, d.txlog.First(d.name)), 0)
	if err != nil || all == nil {
		return err
	}
	for page, err := range only(all.Pages, wanted) {
		if err != nil {
			return err
		}
		images[page.No] = slices.Clone(page.Data)
	}
	return nil
}
