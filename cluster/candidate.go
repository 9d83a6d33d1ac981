package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
)

// errHandedOver ends a candidacy in favour of another node.
var errHandedOver = errors.New("leadership was handed over")

// candidate is this node between becoming Raft's leader and its reign, in one
// epoch.
type candidate struct {
	c      *Cluster
	data   Data
	epoch  uint64
	line   state.Line // as of the candidacy
	voters []string
}

// stand commits a candidacy. The state it leaves has all earlier reigns, and no
// other can be committed before this one.
func (c *Cluster) stand(ctx context.Context, data Data) (*candidate, error) {
	epoch, err := c.apply(ctx, state.Command{Candidacy: &state.Candidacy{Node: c.Self(), Floor: c.floor()}})
	if err != nil {
		return nil, fmt.Errorf("stand for primary: %w", err)
	}
	c.confirm(announceResponse{Epoch: epoch})
	return &candidate{c: c, data: data, epoch: epoch, line: c.State().Line(), voters: c.Voters()}, nil
}

// plan asks for positions and decides, handing over to another node if that is
// better: then it returns errHandedOver. answered says that a majority has, so
// that nobody below this epoch can write any more.
func (d *candidate) plan(ctx context.Context) (targets map[string]promote.Target, answered bool, err error) {
	answers, err := d.gather(ctx)
	if err != nil {
		return nil, false, err
	}
	in := promote.Input{Self: d.c.Self(), Voters: d.voters, Databases: d.c.State().Databases, Line: d.line, Answers: answers}
	for {
		p, err := promote.Choose(in)
		if err != nil {
			return nil, true, err
		}
		if p.HandOver == "" {
			return p.Targets, true, nil
		}
		d.c.logger.Info("hand over candidacy", "epoch", d.epoch, "to", d.c.nameOf(p.HandOver), "reason", p.Reason)
		d.c.tellFenced(ctx, d.epoch)
		if err := d.c.raft.TransferTo(ctx, p.HandOver); err == nil {
			return nil, true, errHandedOver
		} else if ctx.Err() != nil {
			return nil, true, context.Cause(ctx)
		} else {
			d.c.logger.Warn("hand over candidacy", "to", d.c.nameOf(p.HandOver), "error", err)
		}
		in.Excluded = append(in.Excluded, p.HandOver)
	}
}

// gather collects answers until a majority of the voters, this node included, has
// given one, and a moment longer for those that may still have more.
func (d *candidate) gather(ctx context.Context) ([]promote.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, d.c.patience())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	results := make(chan result)
	for _, v := range d.voters {
		wg.Go(func() { d.askLoop(ctx, v, results) })
	}
	var (
		answers []promote.Answer
		silent  = slices.Clone(d.voters) // neither answered nor failed once
		grace   <-chan time.Time
	)
	for {
		select {
		case r := <-results:
			silent = slices.DeleteFunc(silent, func(v string) bool { return v == r.node })
			if errors.Is(r.err, errPromised) {
				return nil, r.err
			}
			if r.err == nil {
				answers = append(answers, r.answer)
			}
		case <-grace:
			return answers, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("ask for positions in epoch %d: %w: %d of %d voters: %w", d.epoch, promote.ErrNoMajority, len(answers), len(d.voters), context.Cause(ctx))
		}
		if len(answers) <= len(d.voters)/2 || !slices.ContainsFunc(answers, func(a promote.Answer) bool { return a.Node == d.c.Self() }) {
			continue
		}
		if len(silent) == 0 {
			return answers, nil
		}
		if grace == nil {
			grace = time.After(d.c.config.Timing.Renewal / 2)
		}
	}
}

// result is one voter's answer, or why there is none yet.
type result struct {
	node   string
	answer promote.Answer
	err    error
}

// askLoop asks one voter until it answers; what it says has to be read by
// someone until ctx ends.
func (d *candidate) askLoop(ctx context.Context, node string, results chan<- result) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		answer, err := d.ask(ctx, node)
		if err != nil {
			d.c.logger.Debug("ask for positions", "epoch", d.epoch, "node", d.c.nameOf(node), "error", err)
		}
		select {
		case results <- result{node: node, answer: answer, err: err}:
		case <-ctx.Done():
			return
		}
		if err == nil || errors.Is(err, errPromised) {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (d *candidate) ask(ctx context.Context, node string) (promote.Answer, error) {
	request := positionRequest{Epoch: d.epoch, Line: d.line}
	if node == d.c.Self() {
		return d.c.answerPosition(ctx, request, d.c.SoleVoter())
	}
	// A voter holds the request for as long as its promise lasts; an answer that
	// was lost is asked for again.
	ctx, cancel := context.WithTimeout(ctx, 2*d.c.config.Timing.Lease+2*time.Second)
	defer cancel()
	var answer positionAnswer
	if err := d.c.Call(ctx, node, methodPosition, request, &answer); err != nil {
		return promote.Answer{}, err
	}
	if answer.Promised > d.epoch {
		d.c.raiseFloor(answer.Promised)
		return promote.Answer{}, fmt.Errorf("ask node %s: %w: %d", d.c.nameOf(node), errPromised, answer.Promised)
	}
	answer.Node = node // whatever it says
	return answer.Answer, nil
}

// positionRequest asks a voter where its databases stand.
type positionRequest struct {
	Epoch uint64     `json:"epoch"`
	Line  state.Line `json:"line"`
}

// positionAnswer is what a voter answers. A Promised above the request's epoch is
// a refusal.
type positionAnswer struct {
	promote.Answer
	Promised uint64 `json:"promised"`
}

// answerPosition is the voter's side: it waits until its promises allow it, and
// the promise that it gives is durable before the answer.
func (c *Cluster) answerPosition(ctx context.Context, r positionRequest, alone bool) (promote.Answer, error) {
	data := c.currentData()
	if data == nil {
		return promote.Answer{}, fmt.Errorf("answer position in epoch %d: the node is not running yet", r.Epoch)
	}
	if err := c.voter.ask(ctx, r.Epoch, r.Line.Newest(), alone); err != nil {
		return promote.Answer{}, err
	}
	positions, err := data.Positions(ctx, r.Epoch, r.Line)
	if err != nil {
		return promote.Answer{}, fmt.Errorf("answer position in epoch %d: %w", r.Epoch, err)
	}
	return promote.Answer{Node: c.Self(), Positions: positions, NoPromote: data.NoPromote(), Priority: c.config.Priority}, nil
}
