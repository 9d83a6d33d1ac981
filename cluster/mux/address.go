package mux

import (
	"fmt"
	"net"
	"strings"
)

// At returns the address of one node: "ID@host:port". With an empty ID any node
// of the cluster may answer.
func At(nodeID, hostport string) string {
	if nodeID == "" {
		return hostport
	}
	return nodeID + "@" + hostport
}

// SplitAddress is the inverse of [At].
func SplitAddress(address string) (nodeID, hostport string, err error) {
	hostport = address
	if id, rest, ok := strings.Cut(address, "@"); ok {
		nodeID, hostport = id, rest
	}
	if _, _, err := net.SplitHostPort(hostport); err != nil {
		return "", "", fmt.Errorf("parse node address %q: %w", address, err)
	}
	return nodeID, hostport, nil
}
