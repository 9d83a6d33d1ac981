package testcluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the lsnode program of the module in directory module into dir
// and returns its path. If LSNODE_BIN is set, that is returned instead.
func Build(ctx context.Context, module, dir string) (string, error) {
	if path := os.Getenv("LSNODE_BIN"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(dir, "lsnode")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/lsnode")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build lsnode: %w: %s", err, out)
	}
	return path, nil
}

// freePorts returns n ports of 127.0.0.1 that nobody uses just now, neither for
// TCP nor for UDP.
func freePorts(n int) (ports []int, err error) {
	for len(ports) < n {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find free port: %w", err)
		}
		defer tcp.Close() // held until all are found, so that none is found twice
		port := tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer udp.Close()
		ports = append(ports, port)
	}
	return ports, nil
}
