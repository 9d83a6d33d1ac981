package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// addressFile is where, in its data dir, a running node says on which address
// its endpoints are; TokenFile is where it keeps the cluster's token.
const (
	addressFile = "http.json"
	TokenFile   = "cluster.token"
)

// ErrNoAddress: no node has left its address in that data dir.
var ErrNoAddress = errors.New("no node has left its address there")

type addressBody struct {
	Address string `json:"address"`
}

// WriteAddress leaves the address of a node's endpoints in its data dir. The
// file is replaced as a whole. It need not survive a power loss: the next start
// writes it anew.
func WriteAddress(dataDir string, address net.Addr) (err error) {
	body, err := json.Marshal(addressBody{Address: address.String()})
	if err != nil {
		return fmt.Errorf("write http address: %w", err)
	}
	f, err := os.CreateTemp(dataDir, addressFile+".*")
	if err != nil {
		return fmt.Errorf("write http address: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write http address: %w", errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, writeErr := f.Write(append(body, '\n'))
	if err := errors.Join(writeErr, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dataDir, addressFile))
}

// ReadAddress returns the address that the node of a data dir left there, as
// one to dial on this host. The node may have stopped since. It wraps
// [ErrNoAddress] if there is none.
func ReadAddress(dataDir string) (string, error) {
	body, err := os.ReadFile(filepath.Join(dataDir, addressFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read http address in %s: %w", dataDir, ErrNoAddress)
	}
	if err != nil {
		return "", fmt.Errorf("read http address: %w", err)
	}
	var a addressBody
	if err := json.Unmarshal(body, &a); err != nil {
		return "", fmt.Errorf("read http address in %s: %w", filepath.Join(dataDir, addressFile), err)
	}
	return DialAddress(a.Address)
}

// DialAddress turns the address that a server listens on into one to dial on
// the same host: an unspecified host becomes loopback.
func DialAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("read address %q: want HOST:PORT", address)
	}
	// A listener on [::] takes IPv4 as well, also where IPv6 has no loopback.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// ReadToken returns the cluster's token from a file, without the white space
// around it.
func ReadToken(path string) (string, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(body))
	if token == "" {
		return "", fmt.Errorf("read token: %s is empty", path)
	}
	return token, nil
}
