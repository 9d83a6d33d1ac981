package cluster

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

// advertised returns the address under which the others reach this node: what is
// configured, with the real port in place of 0; otherwise what is listened on,
// with the host's name in place of an unspecified address.
func advertised(config Config, bound *net.TCPAddr) (string, error) {
	port := strconv.Itoa(bound.Port)
	if config.Advertise != "" {
		host, given, err := net.SplitHostPort(config.Advertise)
		if err != nil {
			return "", fmt.Errorf("advertised address: %w", err)
		}
		if given != "0" {
			port = given
		}
		return net.JoinHostPort(host, port), nil
	}
	if !bound.IP.IsUnspecified() {
		return net.JoinHostPort(bound.IP.String(), port), nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find an address to advertise: %w", err)
	}
	return net.JoinHostPort(host, port), nil
}
