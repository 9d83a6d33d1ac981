package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// figure is one measured quantity with its aim.
type figure struct {
	Name   string             `json:"name"`
	Unit   string             `json:"unit"`
	Values map[string]float64 `json:"values"` // by kind: p50, p99, max, median …
	Count  int                `json:"count"`  // of samples
	Aim    string             `json:"aim,omitempty"`
	Met    *bool              `json:"met,omitempty"` // nil: no aim
}

// add adds a figure; met is ignored if there is no aim.
func (b *bench) add(f figure, met bool) {
	if f.Aim != "" {
		f.Met = &met
	}
	b.figures = append(b.figures, f)
}

// spread returns the distribution of samples, each divided by unit.
func spread(samples []int64, unit time.Duration) map[string]float64 {
	s := slices.Clone(samples)
	slices.Sort(s)
	return map[string]float64{
		"p50": quantile(s, 0.50) / float64(unit),
		"p99": quantile(s, 0.99) / float64(unit),
		"max": quantile(s, 1) / float64(unit),
	}
}

// quantile returns the smallest sample that at least the share q of all does
// not exceed; 0 if there is none. The samples are sorted.
func quantile(sorted []int64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted))+0.999999) - 1
	return float64(sorted[min(max(i, 0), len(sorted)-1)])
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// print prints all figures as a table.
func (b *bench) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tvalues\tsamples\taim\t")
	for _, f := range b.figures {
		var values string
		for _, kind := range []string{"p50", "p99", "max", "median", "min"} {
			if v, ok := f.Values[kind]; ok {
				values += fmt.Sprintf("%s %.3g  ", kind, v)
			}
		}
		verdict := ""
		if f.Met != nil {
			verdict = map[bool]string{true: "met", false: "MISSED"}[*f.Met]
		}
		fmt.Fprintf(t, "%s\t%s%s\t%d\t%s\t%s\n", f.Name, values, f.Unit, f.Count, f.Aim, verdict)
	}
	t.Flush()
}
