package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// Bounds on how long a request may wait.
const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = time.Hour
	changeTimeout  = 30 * time.Second // of what changes the cluster, unless it says otherwise
)

// livez answers as long as the process answers at all.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.cfg.Backend.Ready(); err != nil {
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, s.cfg.Backend.Status(r.Context()).normalised())
}

// primary is for load balancers that look for the node to write on.
func (s *Server) primary(w http.ResponseWriter, r *http.Request) {
	st := s.cfg.Backend.Status(r.Context())
	if st.Role != RolePrimary {
		writeError(w, http.StatusServiceUnavailable, fmt.Sprintf("%s is %s, %s", st.Node, st.Role, primaryIs(st)))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"node": st.Node, "epoch": st.Epoch})
}

func primaryIs(st Status) string {
	if st.Primary == "" {
		return "no primary is known"
	}
	return "the primary is " + st.Primary
}

// replica is for load balancers that look for nodes to read on.
func (s *Server) replica(w http.ResponseWriter, r *http.Request) {
	maxLag, err := durationParam(r, "max_lag", -1)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	st := s.cfg.Backend.Status(r.Context())
	if why := notReplica(st, maxLag); why != "" {
		writeError(w, http.StatusServiceUnavailable, why)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"node": st.Node, "lag_ms": worstLag(st)})
}

// notReplica says why the node is not a follower that streams all of its
// databases within maxLag; a negative one is no bound.
func notReplica(st Status, maxLag time.Duration) string {
	if st.Role != RoleFollower {
		return fmt.Sprintf("%s is %s, no follower", st.Node, st.Role)
	}
	if len(st.Databases) == 0 {
		return fmt.Sprintf("%s has no database yet", st.Node)
	}
	for _, db := range st.Databases {
		if db.State != StateStreaming {
			return fmt.Sprintf("database %s is %s, not streaming", db.Name, db.State)
		}
		if lag := time.Duration(db.LagMS * float64(time.Millisecond)); maxLag >= 0 && lag > maxLag {
			return fmt.Sprintf("database %s lags by %s, more than %s", db.Name, lag.Round(time.Millisecond), maxLag)
		}
	}
	return ""
}

func worstLag(st Status) float64 {
	worst := 0.0
	for _, db := range st.Databases {
		worst = max(worst, db.LagMS)
	}
	return worst
}

// Reached is the answer to a wait: the commit that is visible now.
type Reached struct {
	Bookmark string `json:"bookmark"`
	TXID     string `json:"txid"`
}

func (s *Server) wait(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	pos, err := walstream.ParseBookmark(r.URL.Query().Get("bookmark"))
	if err != nil {
		writeError(w, http.StatusBadRequest, "bookmark: "+err.Error())
		return
	}
	timeout, err := durationParam(r, "timeout", defaultTimeout)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	leave, ok := s.enterWait(w, "wait for "+name)
	if !ok {
		return
	}
	defer leave()
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	switch err := s.cfg.Backend.Wait(ctx, name, pos); {
	case err == nil:
		writeJSON(w, http.StatusOK, Reached{Bookmark: pos.Bookmark(), TXID: pos.TXID.String()})
	case errors.Is(err, context.DeadlineExceeded):
		writeError(w, http.StatusGatewayTimeout, fmt.Sprintf("transaction %s of %s is not visible within %s", pos.TXID, name, timeout))
	default:
		writeError(w, codeOf(err), err.Error())
	}
}

func (s *Server) sync(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	timeout, err := durationParam(r, "timeout", defaultTimeout)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	leave, ok := s.enterWait(w, "sync "+name)
	if !ok {
		return
	}
	defer leave()
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	synced, err := s.cfg.Backend.Sync(ctx, name)
	if err != nil {
		writeError(w, codeOf(err), err.Error())
		return
	}
	writeJSON(w, http.StatusOK, synced)
}

// enterWait lets a request wait, unless too many do. leave ends it.
func (s *Server) enterWait(w http.ResponseWriter, what string) (leave func(), ok bool) {
	if s.waiting.Add(1) <= int64(s.cfg.MaxWaits) {
		return func() { s.waiting.Add(-1) }, true
	}
	s.waiting.Add(-1)
	w.Header().Set("Retry-After", "1")
	writeError(w, http.StatusServiceUnavailable, fmt.Sprintf("%s: %d requests wait already", what, s.cfg.MaxWaits))
	return nil, false
}

// Switched is the answer to a switchover.
type Switched struct {
	Primary string `json:"primary"`
	Epoch   uint64 `json:"epoch"`
}

func (s *Server) switchover(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(ctx context.Context) error { return s.cfg.Backend.Switchover(ctx, r.URL.Query().Get("to")) }, func() any {
		st := s.cfg.Backend.Status(r.Context())
		return Switched{Primary: st.Primary, Epoch: st.Epoch}
	})
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	var verified Verified
	s.change(w, r, func(ctx context.Context) (err error) {
		verified, err = s.cfg.Backend.Verify(ctx, r.PathValue("name"), r.URL.Query().Get("deep") == "true")
		return err
	}, func() any { return verified })
}

func (s *Server) leave(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, s.cfg.Backend.Leave, func() any { return struct{}{} })
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	node := r.URL.Query().Get("node")
	if node == "" {
		writeError(w, http.StatusBadRequest, "remove: name the node with ?node=NAME")
		return
	}
	s.change(w, r, func(ctx context.Context) error { return s.cfg.Backend.Remove(ctx, node) }, func() any { return struct{}{} })
}

// change does what changes the cluster, within the request's timeout. It goes
// on when the client hangs up: half a switchover is worse than one that nobody
// waits for.
func (s *Server) change(w http.ResponseWriter, r *http.Request, do func(context.Context) error, answer func() any) {
	timeout, err := durationParam(r, "timeout", changeTimeout)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	if err := do(ctx); err != nil {
		writeError(w, codeOf(err), err.Error())
		return
	}
	writeJSON(w, http.StatusOK, answer())
}

// durationParam reads a duration such as "1.5s" from the query, up to an hour.
func durationParam(r *http.Request, name string, byDefault time.Duration) (time.Duration, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return byDefault, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxTimeout {
		return 0, fmt.Errorf("%s=%s: want a duration from 0s to %s, such as 500ms or 5s", name, text, maxTimeout)
	}
	return d, nil
}
