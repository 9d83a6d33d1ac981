package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/pagesum"
)

// errNotInLog says that a page that has to be set right was not changed by any
// transaction that the log still has.
var errNotInLog = errors.New("the log no longer has a page that differs")

// rollForward brings a file whose content is in doubt to the log's end with
// nothing but the log: each page that differs must have an image in it. Another
// node's help is needed if that fails.
func (d *database) rollForward(ctx context.Context) error {
	last, ok := d.txlog.LastHeader(d.name)
	if !ok || d.table.Checksum() != last.Post.Checksum {
		return fmt.Errorf("roll %s forward: what it should hold is not known page by page", d.path)
	}
	want := d.table.Clone()
	if err := d.rescan(ctx); err != nil {
		return err
	}
	all, err := apply.Coalesce(d.txlog.Since(d.name, d.txlog.First(d.name)), 0)
	if err != nil {
		return err
	}
	txn := &walstream.Txn{Header: last, Pages: walstream.NoPages}
	txn.Kind, txn.Pre, txn.PageCount = walstream.KindPages, walstream.Position{}, want.PageCount()
	differing := differingPages(want, d.table)
	if all != nil {
		txn.Pages = only(all.Pages, differing)
	}
	if missing, err := lacking(txn.Pages, differing); err != nil || missing > 0 {
		return errors.Join(err, fmt.Errorf("roll %s forward: %w: %d of %d pages", d.path, errNotInLog, missing, len(differing)))
	}
	d.content.Lock()
	defer d.content.Unlock()
	if err := d.replica.Repair(ctx, txn); err != nil {
		return err
	}
	if err := d.replica.Sync(ctx); err != nil {
		return err
	}
	d.log.Warn("rolled the file forward to the log's end", "database", d.name, "position", last.Post, "pages", len(differing))
	d.progress.show(last.Post)
	return d.clearDoubt()
}

// differingPages returns the pages of want that have is otherwise or lacks.
func differingPages(want, have *pagesum.Table) map[uint32]bool {
	pages := map[uint32]bool{}
	for no := uint32(1); no <= want.PageCount(); no++ {
		if want.Get(no) != have.Get(no) {
			pages[no] = true
		}
	}
	return pages
}

// only leaves out the pages that are not wanted.
func only(pages walstream.Pages, wanted map[uint32]bool) walstream.Pages {
	return func(yield func(walstream.Page, error) bool) {
		for page, err := range pages {
			if err == nil && !wanted[page.No] {
				continue
			}
			if !yield(page, err) {
				return
			}
		}
	}
}

// lacking counts the wanted pages that are not among pages.
func lacking(pages walstream.Pages, wanted map[uint32]bool) (int, error) {
	missing := len(wanted)
	for _, err := range pages {
		if err != nil {
			return 0, err
		}
		missing--
	}
	return missing, nil
}
