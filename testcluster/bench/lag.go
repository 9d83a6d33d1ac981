package main

import (
	"context"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// lag measures how long a commit takes to become visible to a reader in another
// process, on a follower, at several rates.
func (b *bench) lag(ctx context.Context) error {
	c, err := b.cluster(ctx, "lag", 3)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := b.warm(ctx, c); err != nil {
		return err
	}
	rates := []int{50, 500, 5000}
	samples := map[int][]int64{}
	for round := range b.rounds {
		for i := range rates {
			rate := rates[(i+round)%len(rates)]
			got, err := b.lagOnce(ctx, c, rate)
			if err != nil {
				return err
			}
			samples[rate] = append(samples[rate], got...)
			s := spread(got, time.Millisecond)
			note("lag: round %d, %d/s: %d seen, p50 %.3f ms, p99 %.3f ms", round+1, rate, len(got), s["p50"], s["p99"])
		}
	}
	for _, rate := range rates {
		f := figure{
			Name: fmt.Sprintf("lag at %d commits/s (%s)", rate, b.sync), Unit: "ms",
			Values: spread(samples[rate], time.Millisecond), Count: len(samples[rate]),
		}
		if rate == 50 {
			f.Aim = "p50 < 1 ms, p99 < 5 ms"
		}
		b.add(f, f.Values["p50"] < 1 && f.Values["p99"] < 5)
	}
	return nil
}

// warm makes the table and waits until every node has it.
func (b *bench) warm(ctx context.Context, c *testcluster.Cluster) error {
	stamp, err := b.apps.Start("stamp", "--db", c.Nodes[0].DB(testcluster.DatabaseName), "--count", "200")
	if err != nil {
		return err
	}
	if _, err := stamp.Wait(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err = c.WaitEqual(ctx, testcluster.DatabaseName)
	return err
}

func (b *bench) lagOnce(ctx context.Context, c *testcluster.Cluster, rate int) ([]int64, error) {
	watch, err := b.apps.Start("watch", "--db", c.Nodes[1].DB(testcluster.DatabaseName), "--every", "10ms")
	if err != nil {
		return nil, err
	}
	defer watch.Kill()
	if err := reported(ctx, watch, func(r app.Report) bool { return r.Count > 0 }); err != nil {
		return nil, err
	}
	stamp, err := b.apps.Start("stamp", "--db", c.Nodes[0].DB(testcluster.DatabaseName), "--rate", fmt.Sprint(rate),
		"--for", b.seconds.String(), "--sync", b.sync)
	if err != nil {
		return nil, err
	}
	defer stamp.Kill()
	done, err := stamp.Wait()
	if err != nil {
		return nil, err
	}
	if err := reported(ctx, watch, func(r app.Report) bool { return r.Seq >= done.Seq }); err != nil {
		return nil, err
	}
	seen, err := watch.Finish()
	if err != nil {
		return nil, err
	}
	return lags(done, seen)
}

// lags joins when each row was committed with when it was seen. Seen before
// COMMIT had returned counts as at once.
func lags(committed, seen app.Report) ([]int64, error) {
	n := len(committed.Values)
	if seen.Seq != committed.Seq || len(seen.Values) < n {
		return nil, fmt.Errorf("join lags: %d rows up to %d were committed, %d up to %d seen",
			n, committed.Seq, len(seen.Values), seen.Seq)
	}
	at := seen.Values[len(seen.Values)-n:]
	lags := make([]int64, n)
	for i := range lags {
		lags[i] = max(0, at[i]-committed.Values[i])
	}
	return lags, nil
}

// reported waits until an application's newest report is as wanted.
func reported(ctx context.Context, c *app.Child, ok func(app.Report) bool) error {
	limit := time.After(30 * time.Second)
	for !ok(c.Last()) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("wait for application %s: waited in vain, last: %+v", c.Last().App, c.Last().Count)
		case <-c.Exited():
			if r, err := c.Wait(); err != nil || !ok(r) {
				return fmt.Errorf("wait for application: it has ended: %w", err)
			}
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}
