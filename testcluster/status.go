package testcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Status is what `GET /v1/status` answers, as far as it is looked at here.
type Status struct {
	Cluster   string           `json:"cluster"`
	Node      string           `json:"node"`
	ID        string           `json:"id"`
	Role      string           `json:"role"`
	Epoch     uint64           `json:"epoch"`
	Primary   string           `json:"primary"`
	Nodes     []NodeStatus     `json:"nodes"`
	Databases []DatabaseStatus `json:"databases"`
	Guard     GuardStatus      `json:"guard"`
}

// GuardStatus is how the node's guard does.
type GuardStatus struct {
	State    string `json:"state"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
}

// NodeStatus is one node as another sees it.
type NodeStatus struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Address string `json:"address"`
	Role    string `json:"role"`
	Voter   bool   `json:"voter"`
	Alive   bool   `json:"alive"`
}

// DatabaseStatus is one database on the node that was asked.
type DatabaseStatus struct {
	Name        string  `json:"name"`
	Path        string  `json:"path"`
	Epoch       uint64  `json:"epoch"`
	TXID        string  `json:"txid"`
	Checksum    string  `json:"checksum"`
	SyncedTXID  string  `json:"synced_txid"`
	Bookmark    string  `json:"bookmark"`
	State       string  `json:"state"`
	Error       string  `json:"error"`
	LagMS       float64 `json:"lag_ms"`
	LagTXIDs    int64   `json:"lag_txids"`
	WALBytes    int64   `json:"wal_bytes"`
	Quarantined int64   `json:"quarantined"`
}

// Database returns the database called name; the zero value if there is none.
func (s Status) Database(name string) DatabaseStatus {
	for _, d := range s.Databases {
		if d.Name == name {
			return d
		}
	}
	return DatabaseStatus{}
}

// Peer returns what the node knows of the node called name.
func (s Status) Peer(name string) NodeStatus {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return NodeStatus{}
}

// Voters counts the nodes that vote.
func (s Status) Voters() (n int) {
	for _, p := range s.Nodes {
		if p.Voter {
			n++
		}
	}
	return n
}

const statusLimit = 4 << 20

// getStatus asks the node at address, over connections that dial makes.
func getStatus(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), address string) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/status", nil)
	if err != nil {
		return Status{}, fmt.Errorf("ask %s for status: %w", address, err)
	}
	res, err := client.Do(req)
	if err != nil {
		return Status{}, fmt.Errorf("ask for status: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, statusLimit))
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	var s Status
	if res.StatusCode != http.StatusOK {
		return s, fmt.Errorf("ask %s for status: %s: %s", address, res.Status, body)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("read status of %s: %w", address, err)
	}
	return s, nil
}
