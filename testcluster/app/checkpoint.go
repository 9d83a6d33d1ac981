package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// runCheckpoint runs the application's own checkpoints, one kind after the
// other, and times them. Values holds the time each took that succeeded.
func runCheckpoint(ctx context.Context, r *run) (err error) {
	modes := []string{"passive", "full", "restart", "truncate"}
	if r.mode != "all" {
		modes = strings.Split(r.mode, ",")
	}
	c, err := Open(r.db, Settings{Busy: 5 * time.Second, AutoCheckpoint: r.autockpt})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	start := time.Now()
	for n := int64(0); ctx.Err() == nil && (r.count == 0 || n < r.count); n++ {
		r.pace(ctx, start, n)
		var busy, frames, copied int64
		mode := modes[n%int64(len(modes))]
		begun := time.Now()
		err := c.Row("PRAGMA wal_checkpoint("+mode+")", &busy, &frames, &copied)
		took := time.Since(begun)
		switch {
		case IsBusy(err) || err == nil && busy != 0:
			r.report.Busy++
		case err != nil:
			return fmt.Errorf("checkpoint %s: %w", mode, err)
		default:
			r.succeeded(took, 0)
			r.report.Values = append(r.report.Values, int64(took))
		}
		if err := r.tell(); err != nil {
			return err
		}
	}
	return nil
}
