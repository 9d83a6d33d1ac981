package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds what a client reads of one answer.
const maxAnswer = 16 << 20

// Client asks one node. It is safe for concurrent use.
type Client struct {
	Address string       // of the node's endpoints, HOST:PORT
	Token   string       // the cluster's; needed by what changes it
	HTTP    *http.Client // default: one without proxy; time is bounded by ctx
}

// Error is a node's answer that was not 200. With [errors.Is] it is the
// sentinel that its code stands for ([ErrLineLost], [ErrRefused]), and
// [context.DeadlineExceeded] for 504.
type Error struct {
	Code    int    // HTTP status
	Message string // what the node says
}

// Error returns what the node says.
func (e *Error) Error() string { return e.Message }

// Is tells which sentinel the code stands for.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case http.StatusGone:
		return target == ErrLineLost
	case http.StatusConflict:
		return target == ErrRefused
	case http.StatusGatewayTimeout:
		return target == context.DeadlineExceeded
	}
	return false
}

// Status returns what the node knows.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.do(ctx, http.MethodGet, "/v1/status", nil, &st)
	return st, err
}

// Ready returns nil when the node serves every database, and an [*Error]
// otherwise.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, "/readyz", nil, nil)
}

// Wait returns once the database shows the bookmark's commit on that node.
// Errors: an [*Error] that is [ErrLineLost], or [context.DeadlineExceeded] when
// the timeout comes first.
func (c *Client) Wait(ctx context.Context, db, bookmark string, timeout time.Duration) (Reached, error) {
	query := url.Values{"bookmark": {bookmark}, "timeout": {timeout.String()}}
	var reached Reached
	err := c.do(ctx, http.MethodGet, "/v1/databases/"+url.PathEscape(db)+"/wait", query, &reached)
	return reached, err
}

// Sync returns once everything that was committed to the database before the
// call is durable on a majority. The node must be the primary. Errors: an
// [*Error], with code 504 when the timeout comes first.
func (c *Client) Sync(ctx context.Context, db string, timeout time.Duration) (Synced, error) {
	var synced Synced
	err := c.do(ctx, http.MethodPost, "/v1/databases/"+url.PathEscape(db)+"/sync", url.Values{"timeout": {timeout.String()}}, &synced)
	return synced, err
}

// Verify compares what all nodes have of a database, on the primary. deep: each
// node reads every page from disk, and has repaired what is damaged.
func (c *Client) Verify(ctx context.Context, db string, deep bool, timeout time.Duration) (Verified, error) {
	query := url.Values{"timeout": {timeout.String()}}
	if deep {
		query.Set("deep", "true")
	}
	var verified Verified
	err := c.do(ctx, http.MethodPost, "/v1/databases/"+url.PathEscape(db)+"/verify", query, &verified)
	return verified, err
}

// Switchover hands the primary's role to the named node, or to the best placed
// one, and returns once that is open for writing.
func (c *Client) Switchover(ctx context.Context, to string, timeout time.Duration) (Switched, error) {
	query := url.Values{"timeout": {timeout.String()}}
	if to != "" {
		query.Set("to", to)
	}
	var switched Switched
	err := c.do(ctx, http.MethodPost, "/v1/switchover", query, &switched)
	return switched, err
}

// Leave takes the node out of its cluster and stops it.
func (c *Client) Leave(ctx context.Context, timeout time.Duration) error {
	return c.do(ctx, http.MethodPost, "/v1/leave", url.Values{"timeout": {timeout.String()}}, nil)
}

// Remove takes another, dead node out of the cluster.
func (c *Client) Remove(ctx context.Context, node string, timeout time.Duration) error {
	query := url.Values{"node": {node}, "timeout": {timeout.String()}}
	return c.do(ctx, http.MethodPost, "/v1/remove", query, nil)
}

// do sends a request and decodes the answer into result, if that is not nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, result any) error {
	u := url.URL{Scheme: "http", Host: c.Address, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return fmt.Errorf("ask node at %s: %w", c.Address, err)
	}
	if r.URL, err = r.URL.Parse(path); err != nil {
		return fmt.Errorf("ask node at %s: %w", c.Address, err)
	}
	r.URL.RawQuery = query.Encode()
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := c.HTTP
	if client == nil {
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	}
	resp, err := client.Do(r)
	if err != nil {
		var u *url.Error // its text repeats the whole address with the query
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("ask node at %s: %w", c.Address, err)
	}
	defer resp.Body.Close() // only read from: nothing is lost
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of node at %s: %w", c.Address, err)
	}
	if resp.StatusCode != http.StatusOK {
		return answerError(c.Address, resp.StatusCode, body)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(body, result); err != nil {
		return fmt.Errorf("read answer of node at %s: %w", c.Address, err)
	}
	return nil
}

// answerError reads an answer that is not 200. Something else than a node may
// have answered: then its words mean nothing to us.
func answerError(address string, code int, body []byte) error {
	var e errorBody
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		return fmt.Errorf("ask node at %s: it answered %d %s without saying why: is it an lsnode?", address, code, http.StatusText(code))
	}
	return &Error{Code: code, Message: e.Error}
}
