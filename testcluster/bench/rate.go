package main

import (
	"context"
	"fmt"
	"os"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// rate measures commits a second of an application at full speed: without
// lsnode, with lsnode alone, and with two followers.
func (b *bench) rate(ctx context.Context) error {
	plain := b.dir + "/plain"
	if err := os.Mkdir(plain, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := app.Prepare(plain+"/bank.db", 200); err != nil {
		return err
	}
	places := []struct{ name, db string }{{"without", plain + "/bank.db"}}
	for i, name := range []string{"alone", "followers"} {
		c, err := b.cluster(ctx, name, 1+2*i)
		if err != nil {
			return err
		}
		defer c.Close()
		places = append(places, struct{ name, db string }{name, c.Nodes[0].DB(testcluster.DatabaseName)})
	}
	rates := map[string][]float64{}
	for round := range b.rounds {
		for i := range places {
			p := places[(i+round)%len(places)]
			rate, err := b.rateOnce(p.db)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			rates[p.name] = append(rates[p.name], rate)
			note("rate: round %d, %s: %.0f commits/s", round+1, p.name, rate)
		}
	}
	b.add(figure{Name: "commits/s without lsnode (" + b.sync + ")", Unit: "/s", Count: b.rounds,
		Values: map[string]float64{"median": median(rates["without"])}}, true)
	for _, name := range []string{"alone", "followers"} {
		aim := map[string]string{"alone": "ratio >= 0.85"}[name]
		var ratios []float64
		for i, r := range rates[name] {
			ratios = append(ratios, r/rates["without"][i])
		}
		m := median(ratios)
		b.add(figure{Name: "commits/s with lsnode, " + name, Unit: "of without", Count: b.rounds, Aim: aim,
			Values: map[string]float64{"median": m}}, m >= 0.85)
	}
	return nil
}

func (b *bench) rateOnce(db string) (float64, error) {
	stamp, err := b.apps.Start("stamp", "--db", db, "--for", b.seconds.String(), "--sync", b.sync)
	if err != nil {
		return 0, err
	}
	defer stamp.Kill()
	r, err := stamp.Wait()
	if err != nil {
		return 0, err
	}
	if len(r.Values) < 2 {
		return 0, fmt.Errorf("measure rate: %d commits only", len(r.Values))
	}
	return float64(len(r.Values)-1) / (float64(r.Values[len(r.Values)-1]-r.Values[0]) / 1e9), nil
}
