package main

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster/app"
)

func TestSpread(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(100-i) * int64(time.Millisecond)
	}
	for _, test := range []struct {
		samples []int64
		want    map[string]float64
	}{
		{nil, map[string]float64{"p50": 0, "p99": 0, "max": 0}},
		{[]int64{3e6}, map[string]float64{"p50": 3, "p99": 3, "max": 3}},
		{hundred, map[string]float64{"p50": 50, "p99": 99, "max": 100}},
	} {
		if got := spread(test.samples, time.Millisecond); !maps.Equal(got, test.want) {
			t.Errorf("%d samples: got %v, want %v", len(test.samples), got, test.want)
		}
	}
}

func TestLags(t *testing.T) {
	committed := app.Report{Seq: 12, Values: []int64{100, 200, 300}}
	for _, test := range []struct {
		name string
		seen app.Report
		want []int64
	}{
		{"each", app.Report{Seq: 12, Values: []int64{110, 230, 300}}, []int64{10, 30, 0}},
		{"an older one too", app.Report{Seq: 12, Values: []int64{1, 110, 230, 300}}, []int64{10, 30, 0}},
		{"before COMMIT returned", app.Report{Seq: 12, Values: []int64{90, 230, 300}}, []int64{0, 30, 0}},
		{"one not seen", app.Report{Seq: 12, Values: []int64{110, 230}}, nil},
		{"not all yet", app.Report{Seq: 11, Values: []int64{1, 110, 230}}, nil},
	} {
		got, err := lags(committed, test.seen)
		if (err != nil) != (test.want == nil) || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, %v, want %v", test.name, got, err, test.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{4}, 4}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(test.in); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.in, got, test.want)
		}
	}
}

func TestPrint(t *testing.T) {
	b := &bench{}
	b.add(figure{Name: "lag", Unit: "ms", Values: map[string]float64{"p50": 0.5, "p99": 4}, Count: 7, Aim: "p50 < 1 ms"}, true)
	b.add(figure{Name: "gap", Unit: "ms", Values: map[string]float64{"p50": 900}, Count: 1, Aim: "p50 < 250 ms"}, false)
	b.add(figure{Name: "plain", Unit: "/s", Values: map[string]float64{"median": 30000}, Count: 5}, false)
	var out bytes.Buffer
	b.print(&out)
	for _, want := range []string{"p50 0.5  p99 4  ms", "p50 < 1 ms", "met\n", "MISSED\n", "median 3e+04  /s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
