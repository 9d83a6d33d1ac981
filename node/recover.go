package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// ErrMajority is wrapped when a recovery is asked for and not needed.
var ErrMajority = errors.New("a majority of the voters is there: nothing has to be recovered")

// methodStanding asks a node where its databases stand, for a recovery.
const methodStanding = "node.standing"

// Standing is where a node's log of a database ends.
type Standing struct {
	TXID  walstream.TXID  `json:"txid"`
	Epoch walstream.Epoch `json:"epoch"`
	At    time.Time       `json:"at"` // when that transaction was made
}

// ahead tells whether a node has more than another.
func (s Standing) ahead(of Standing) bool {
	return s.Epoch > of.Epoch || s.Epoch == of.Epoch && s.TXID > of.TXID
}

// standingAnswer is what a node answers.
type standingAnswer struct {
	Epoch     uint64              `json:"epoch"` // the highest that it knows of
	Databases map[string]Standing `json:"databases"`
}

// answerStanding implements methodStanding.
func (n *Node) answerStanding(context.Context, string, []byte) (any, error) {
	return standingAnswer{Epoch: max(n.cluster.Promised(), n.cluster.State().Epoch), Databases: standingOf(n.txlog)}, nil
}

func standingOf(log *txlog.Log) map[string]Standing {
	all := map[string]Standing{}
	for _, name := range log.Databases() {
		if h, ok := log.LastHeader(name); ok {
			all[name] = Standing{TXID: h.Post.TXID, Epoch: h.Post.Epoch, At: h.Time}
		}
	}
	return all
}

// Surveyed is one member as a recovery finds it.
type Surveyed struct {
	ID, Name, Address string
	Voter             bool
	Self              bool                // the node that is to go on alone
	Err               error               // why it did not answer
	Databases         map[string]Standing // if it did
	epoch             uint64
}

// Survey is what there is to know before a node goes on alone.
type Survey struct {
	Cluster   string
	Databases []string
	Nodes     []Surveyed // this node first, then by name
}

// Ahead returns who has more of some database than this node.
func (s Survey) Ahead() []string {
	var names []string
	for _, other := range s.Nodes[1:] {
		for db, has := range other.Databases {
			if has.ahead(s.Nodes[0].Databases[db]) && !slices.Contains(names, other.Name) {
				names = append(names, other.Name)
			}
		}
	}
	return names
}

// majority tells whether the voters that answer could elect a primary.
func (s Survey) majority() bool {
	voters, there := 0, 0
	for _, n := range s.Nodes {
		if n.Voter {
			voters++
			if n.Err == nil {
				there++
			}
		}
	}
	return voters > 0 && there > voters/2
}

// surveyTime bounds how long an answer of another node is waited for.
const surveyTime = 5 * time.Second

// Recover lets the node of a data dir, which must not be running, go on as the
// only member of a cluster that has lost the majority of its voters for good.
// confirm gets what was found and returns nil to go on, as nothing that the others
// had and this node has not will count any more. On return all is durable, and the
// node may be started. Members that come back join anew, by themselves, with what
// they have more kept in quarantine. [ErrMajority]: the node need only be started.
func Recover(ctx context.Context, dataDir string, logger *slog.Logger, confirm func(Survey) error) (err error) {
	r, err := cluster.OpenRecovery(ctx, dataDir, logger)
	if err != nil {
		return err
	}
	defer closeJoining(r, &err)
	survey, err := look(ctx, r, dataDir, logger)
	if err != nil {
		return err
	}
	if survey.majority() {
		return fmt.Errorf("go on alone: %w: start this node instead", ErrMajority)
	}
	if err := confirm(survey); err != nil {
		return err
	}
	floor := uint64(0)
	for _, n := range survey.Nodes {
		floor = max(floor, n.epoch)
		for _, s := range n.Databases {
			floor = max(floor, uint64(s.Epoch))
		}
	}
	return r.GoOnAlone(floor)
}

func closeJoining(c io.Closer, err *error) { *err = errors.Join(*err, c.Close()) }

// look finds out what each member has.
func look(ctx context.Context, r *cluster.Recovery, dataDir string, logger *slog.Logger) (s Survey, err error) {
	log, err := txlog.Open(filepath.Join(dataDir, "log"), txlog.Options{Logger: logger})
	if err != nil {
		return s, err
	}
	defer closeJoining(log, &err)
	state := r.State()
	s.Cluster, s.Databases = state.ClusterID, state.Databases
	voters := r.Voters()
	for _, m := range state.Members() {
		s.Nodes = append(s.Nodes, Surveyed{
			ID: m.ID, Name: m.Name, Address: m.Address, Voter: slices.Contains(voters, m.ID), Self: m.ID == r.Self(),
		})
	}
	slices.SortStableFunc(s.Nodes, func(a, b Surveyed) int {
		if a.Self != b.Self {
			if a.Self {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	s.Nodes[0].Databases, s.Nodes[0].epoch = standingOf(log), r.Promised()
	ctx, cancel := context.WithTimeout(ctx, surveyTime)
	defer cancel()
	var asking sync.WaitGroup
	for i := range s.Nodes[1:] {
		n := &s.Nodes[i+1]
		asking.Go(func() {
			var answer standingAnswer
			n.Err = r.Call(ctx, n.ID, methodStanding, struct{}{}, &answer)
			n.Databases, n.epoch = answer.Databases, answer.Epoch
		})
	}
	asking.Wait()
	return s, nil
}
