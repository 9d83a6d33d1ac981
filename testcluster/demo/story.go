package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
	"github.com/lsnode/lsnode/testcluster/oracle"
)

const (
	rate      = 200                    // commits a second that the bank makes
	workTime  = 5 * time.Second        // of each part of the work
	afterlife = 300 * time.Millisecond // how long the bank outlives lsnode on its host
)

// story is one run. Its own goroutine uses it, the view reads it.
type story struct {
	*testcluster.Cluster
	screen  *screen
	writers map[string]*app.Child // the bank on each node, by name
	readers map[string]*app.Child
}

// tell does and shows everything, one step after the other.
func (s *story) tell(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	v := newView(s)
	defer v.stop()
	if err := s.work(ctx, "The bank writes on %s; readers check every copy"); err != nil {
		return err
	}
	dead, err := s.kill(ctx)
	if err != nil {
		return err
	}
	if err := s.work(ctx, "The bank goes on, on %s"); err != nil {
		return err
	}
	if err := s.rejoin(ctx, dead); err != nil {
		return err
	}
	if err := s.work(ctx, "All three nodes are there again; %s is primary"); err != nil {
		return err
	}
	return s.check(ctx, v)
}

// start makes the cluster and starts a bank and a reader on every node. The
// banks on the followers are refused, and wait until they are not.
func (s *story) start(ctx context.Context) error {
	s.screen.say("Three nodes on this machine, files in %s", s.Dir)
	begun := time.Now()
	if err := s.Cluster.Start(ctx); err != nil {
		return err
	}
	s.screen.say("n1 began a cluster around the bank's file; n2 and n3 joined and have copies, after %s", since(begun))
	for _, n := range s.Nodes {
		if err := s.apps(n); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) record(n *testcluster.Node) string {
	return filepath.Join(filepath.Dir(n.LogFile), "commits")
}

func (s *story) apps(n *testcluster.Node) (err error) {
	db := n.DB(testcluster.DatabaseName)
	worker := "1"
	for i, m := range s.Nodes {
		if m == n {
			worker = fmt.Sprint(i + 1)
		}
	}
	s.screen.mu.Lock() // the view reads the maps
	defer s.screen.mu.Unlock()
	s.writers[n.Name], err = s.Apps.Start("bank", "--db", db, "--reopen", "--worker", worker, "--oracle", s.record(n),
		"--rate", fmt.Sprint(rate), "--every", "20ms", "--seed", fmt.Sprint(time.Now().UnixNano()))
	if err != nil {
		return err
	}
	// At a failover commits that no majority had may vanish: there, and only
	// there, a reader may see less than before.
	s.readers[n.Name], err = s.Apps.Start("reader", "--db", db, "--rate", "500", "--forward=false")
	return err
}

// work lets everything run for a while and checks that it does.
func (s *story) work(ctx context.Context, format string) error {
	primary, err := s.WaitPrimary(ctx)
	if err != nil {
		return err
	}
	s.screen.say(format, primary.Name)
	before := s.writers[primary.Name].Last().Count
	until := time.After(workTime)
	for {
		select {
		case <-until:
			if after := s.writers[primary.Name].Last().Count; after == before {
				return fmt.Errorf("work on %s: the bank made no commit in %s", primary.Name, workTime)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("work on %s: %w", primary.Name, ctx.Err())
		case <-time.After(100 * time.Millisecond):
			if err := s.healthy(); err != nil {
				return err
			}
		}
	}
}

// healthy returns the error of any application that has ended by itself.
func (s *story) healthy() error {
	for _, apps := range []map[string]*app.Child{s.writers, s.readers} {
		for name, c := range apps {
			select {
			case <-c.Exited():
				_, err := c.Wait()
				return fmt.Errorf("on node %s: %w", name, errors.Join(err, errors.New("it ended by itself")))
			default:
			}
		}
	}
	return nil
}

// kill kills the primary's lsnode, and a moment later what else runs on its
// host, and waits until the bank writes elsewhere.
func (s *story) kill(ctx context.Context) (*testcluster.Node, error) {
	dead, err := s.WaitPrimary(ctx)
	if err != nil {
		return nil, err
	}
	killed := app.Clock()
	dead.Kill()
	s.screen.say("Killed lsnode on %s (SIGKILL). Its bank knows nothing of it and goes on trying for a moment", dead.Name)
	time.Sleep(afterlife)
	s.drop(dead.Name)
	heir, err := s.WaitPrimary(ctx, dead)
	if err != nil {
		return nil, err
	}
	bank := s.writers[heir.Name]
	for bank.Last().First < killed {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the bank to write on %s: %w", heir.Name, ctx.Err())
		case <-bank.Exited():
			return nil, s.healthy()
		case <-time.After(5 * time.Millisecond):
		}
	}
	s.screen.say("%s took over: its bank's first commit came %d ms after the kill", heir.Name, (bank.Last().First-killed)/1e6)
	return dead, nil
}

// drop kills the applications of a node.
func (s *story) drop(name string) {
	s.writers[name].Kill()
	s.readers[name].Kill()
	s.screen.mu.Lock()
	defer s.screen.mu.Unlock()
	delete(s.writers, name)
	delete(s.readers, name)
}

// rejoin starts the dead node again and says what it had that nobody else has.
func (s *story) rejoin(ctx context.Context, dead *testcluster.Node) error {
	begun := time.Now()
	if err := s.StartNode(dead); err != nil {
		return err
	}
	status, err := dead.WaitFor(ctx, "following", testcluster.IsFollowing)
	if err != nil {
		return err
	}
	unshipped, err := s.unshipped(ctx, dead)
	if err != nil {
		return err
	}
	s.screen.say("%s is back as a follower after %s. Commits that had not been shipped: %d, each found in its quarantine (it reports at least %d)",
		dead.Name, since(begun), unshipped, status.Database(testcluster.DatabaseName).Quarantined)
	return s.apps(dead)
}

// unshipped counts the commits of a dead node's bank that the cluster lacks, and
// looks for each in quarantine.
func (s *story) unshipped(ctx context.Context, dead *testcluster.Node) (int, error) {
	record, err := oracle.Read(s.record(dead))
	if err != nil {
		return 0, err
	}
	found, err := record.Check(ctx, dead.DB(testcluster.DatabaseName))
	if err != nil {
		return 0, err
	}
	copies, err := oracle.Quarantined(dead.DataDir)
	if err != nil {
		return 0, err
	}
	lost, err := record.FindIn(ctx, found.Missing, copies)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("look into quarantine of %s: %d of %d commits that had not been shipped are not there", dead.Name, len(lost), len(found.Missing))
	}
	return len(found.Missing), err
}

// check ends the applications and compares everything.
func (s *story) check(ctx context.Context, v *view) error {
	commits, reads := int64(0), int64(0)
	for _, apps := range []map[string]*app.Child{s.writers, s.readers} {
		for name, c := range apps {
			r, err := c.Finish()
			if err != nil {
				return fmt.Errorf("on node %s: %w", name, err)
			}
			if r.App == "reader" {
				reads += r.Count
			}
		}
	}
	v.stop()
	digest, err := s.Compare(ctx)
	if err != nil {
		return err
	}
	var records []string
	for _, n := range s.Nodes {
		records = append(records, s.record(n))
	}
	record, err := oracle.Read(records...)
	if err != nil {
		return err
	}
	verdict, err := s.Verify(ctx, record)
	if err != nil {
		return err
	}
	commits = int64(verdict.Committed)
	s.screen.say("Equal on all three nodes: checksum %s, %d pages, %d accounts, %d rows in the register",
		digest.Checksum, digest.PageCount, digest.Rows["account"], digest.Rows["register"])
	s.screen.say("Of %d commits that the bank saw succeed %d are on every node, %d in quarantine, 0 lost",
		commits, commits-int64(verdict.Quarantined), verdict.Quarantined)
	s.screen.say("The sum of all money was right in each of %d snapshots that readers saw. All checks passed", reads)
	return nil
}

// end kills what still runs.
func (s *story) end() error {
	for _, apps := range []map[string]*app.Child{s.writers, s.readers} {
		for _, c := range apps {
			c.Kill()
		}
	}
	return s.Close()
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
