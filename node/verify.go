package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
)

// methodVerify asks a node what it has of a database at a position. A deep look
// takes long: the same request is sent again until the answer is done.
const methodVerify = "node.verify"

const (
	// verifyStep bounds how long one request is worked on.
	verifyStep = 5 * time.Second
	// verifyLife bounds a deep look, and how long its outcome is kept.
	verifyLife = time.Hour
)

type verifyRequest struct {
	Database string `json:"database"`
	Position string `json:"position"`
	Deep     bool   `json:"deep"`
	Run      string `json:"run"` // names the deep look
}

// verifyAnswer is what one node has.
type verifyAnswer struct {
	Done     bool              `json:"done"`
	Position string            `json:"position"` // what its log has at that TXID
	Sums     string            `json:"sums"`     // all page checksums together, at At
	At       string            `json:"at"`       // where it stood when they were read
	Pages    uint32            `json:"pages"`    // read from disk
	Damaged  int               `json:"damaged"`
	Named    map[uint32]string `json:"named,omitempty"` // some of the damaged pages
	Repaired bool              `json:"repaired"`
	Error    string            `json:"error,omitempty"`
}

// namedPages bounds the damaged pages that an answer names.
const namedPages = 20

// deepLook is an examination that somebody asked for. It goes on when nobody
// asks any more.
type deepLook struct {
	run    string
	done   chan struct{}
	answer verifyAnswer // valid once done is closed
}

// deepLooks are the examinations of a node, one a database at a time.
type deepLooks struct {
	life context.Context // ends when the node stops
	end  context.CancelFunc
	work sync.WaitGroup

	mu    sync.Mutex
	looks map[string]*deepLook // by database; guarded by mu
}

func newDeepLooks() *deepLooks {
	l := &deepLooks{looks: map[string]*deepLook{}}
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// close ends what is under way. Nothing begins any more.
func (l *deepLooks) close() {
	l.end()
	l.work.Wait()
}

// Verify implements [api.Backend].
func (n *Node) Verify(ctx context.Context, name string, deep bool) (api.Verified, error) {
	verified := api.Verified{Database: name}
	r := n.reign.Load()
	if r == nil || n.cluster.Role() != cluster.RolePrimary {
		return verified, fmt.Errorf("verify %s: %w", name, api.ErrNotPrimary)
	}
	d := n.known(name)
	if d == nil {
		return verified, fmt.Errorf("verify %s: %w", name, api.ErrUnknownDatabase)
	}
	pos, err := d.flush(ctx)
	if err != nil {
		return verified, fmt.Errorf("verify %s: %w", name, err)
	}
	verified.TXID, verified.Checksum = pos.TXID.String(), pos.Checksum.String()
	request := verifyRequest{Database: name, Position: pos.String(), Deep: deep, Run: fmt.Sprintf("%s-%d", n.cluster.Self(), time.Now().UnixNano())}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, m := range n.cluster.State().Members() {
		wg.Go(func() {
			found := n.verifyOn(ctx, m.ID, request, pos)
			found.Node = m.Name
			mu.Lock()
			defer mu.Unlock()
			verified.Nodes = append(verified.Nodes, found)
		})
	}
	wg.Wait()
	slices.SortFunc(verified.Nodes, func(a, b api.VerifiedNode) int {
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	return verified, nil
}

// verifyOn asks one node, this one too, until it is done, and judges the answer.
func (n *Node) verifyOn(ctx context.Context, id string, request verifyRequest, pos walstream.Position) api.VerifiedNode {
	var answer verifyAnswer
	for !answer.Done {
		answer = verifyAnswer{}
		var err error
		if id == n.cluster.Self() {
			answer = n.verifyHere(ctx, request)
		} else {
			step, cancel := context.WithTimeout(ctx, 2*verifyStep)
			err = n.cluster.Call(step, id, methodVerify, request, &answer)
			cancel()
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("it has not answered in time: %w", ctx.Err())
		}
		if err != nil {
			return api.VerifiedNode{Error: err.Error()}
		}
	}
	v := api.VerifiedNode{
		PagesRead: answer.Pages, Damaged: answer.Damaged, Pages: answer.Named, Repaired: answer.Repaired, Error: answer.Error,
	}
	at, err := walstream.ParsePosition(answer.Position)
	if err != nil {
		return v
	}
	v.TXID, v.Checksum = at.TXID.String(), at.Checksum.String()
	stood, err := walstream.ParsePosition(answer.At)
	v.Equal = err == nil && at == pos && answer.Sums == stood.Checksum.String() && v.Damaged == 0
	return v
}

// answerVerify is the side of the node that is asked.
func (n *Node) answerVerify(ctx context.Context, _ string, body []byte) (any, error) {
	var request verifyRequest
	if err := rpc.Decode(body, &request); err != nil {
		return nil, err
	}
	return n.verifyHere(ctx, request), nil
}

// verifyHere waits until this node stands at the position and says what it has
// then. It answers within a bounded time, done or not.
func (n *Node) verifyHere(ctx context.Context, request verifyRequest) verifyAnswer {
	ctx, cancel := context.WithTimeout(ctx, verifyStep)
	defer cancel()
	answer, err := n.verified(ctx, request)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errUnsettled):
		pause(ctx, retryFirst)
		return verifyAnswer{}
	case err != nil:
		return verifyAnswer{Done: true, Error: err.Error()}
	}
	return answer
}

func (n *Node) verified(ctx context.Context, request verifyRequest) (verifyAnswer, error) {
	goal, err := walstream.ParsePosition(request.Position)
	if err != nil {
		return verifyAnswer{}, err
	}
	d := n.known(request.Database)
	if d == nil {
		return verifyAnswer{}, fmt.Errorf("this node has no %s", request.Database)
	}
	if err := n.await(ctx, d.name, goal); err != nil {
		return verifyAnswer{}, err
	}
	answer := verifyAnswer{Done: true}
	if request.Deep {
		look := n.looks.begin(n, d, request.Run)
		select {
		case <-look.done:
		case <-ctx.Done():
			return verifyAnswer{}, ctx.Err()
		}
		if answer = look.answer; answer.Error != "" {
			return answer, nil
		}
	}
	if answer.At, answer.Sums, err = d.sums(ctx); err != nil {
		return answer, err
	}
	at, _ := n.txlog.Floor(d.name, goal)
	if first := n.txlog.First(d.name); at.IsZero() && !first.IsZero() {
		// A repair has begun the log anew beyond the position: there is nothing to
		// compare at it, and what the file holds now is compared by its checksum.
		at = goal
	}
	answer.Position = at.String()
	return answer, nil
}

// sums adds up the checksums of all pages, and says where the database stands.
func (d *database) sums(ctx context.Context) (at, sum string, err error) {
	s, err := d.snapshot(ctx)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	all := walstream.ChecksumFlag
	part := make([]walstream.Checksum, 4096)
	for next := uint32(1); ; {
		count := s.Sums.Entries(next, part)
		if count == 0 {
			break
		}
		for _, one := range part[:count] {
			if one != 0 {
				all = all.XOR(one)
			}
		}
		next += uint32(count)
	}
	return s.Position.String(), all.String(), nil
}

// begin starts an examination of a database, or returns the one of that name
// that was started before.
func (l *deepLooks) begin(n *Node, d *database, run string) *deepLook {
	l.mu.Lock()
	defer l.mu.Unlock()
	if look := l.looks[d.name]; look != nil && look.run == run {
		return look
	}
	look := &deepLook{run: run, done: make(chan struct{})}
	l.looks[d.name] = look
	l.work.Go(func() {
		defer close(look.done)
		ctx, cancel := context.WithTimeout(l.life, verifyLife)
		defer cancel()
		look.answer = n.lookDeep(ctx, d)
	})
	return look
}

// lookDeep reads all pages of a database from disk and repairs those that are
// damaged.
func (n *Node) lookDeep(ctx context.Context, d *database) verifyAnswer {
	found, repaired, err := n.check(ctx, d, atHalfSpeed)
	answer := verifyAnswer{Done: true, Repaired: repaired}
	if err != nil {
		answer.Error = err.Error()
	}
	if found == nil {
		return answer
	}
	answer.Pages, answer.Damaged, answer.Named = found.read, found.count(), map[uint32]string{}
	for no, what := range found.damaged {
		if len(answer.Named) < namedPages {
			answer.Named[no] = what
		}
	}
	return answer
}
