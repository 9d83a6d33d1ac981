package testcluster_test

import (
	"fmt"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/lsnode/lsnode/testcluster"
)

// An external NATS server carries the live stream; while it is away, followers
// pull what they lack.
func TestExternalNATS(t *testing.T) {
	port := 0
	start := func() *natsserver.Server {
		if port == 0 {
			port = -1
		}
		s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: port, NoSigs: true})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("the NATS server does not start")
		}
		port = portOf(t, s.ClientURL())
		return s
	}
	nats := start()
	defer func() { nats.Shutdown() }()
	w := started(t, 2*time.Minute, testcluster.Options{Nonvoters: true, Args: []string{"--nats", nats.ClientURL()}})
	bank := w.writer(w.Nodes[0], "bank", "--rate", "200")
	mixed := w.writer(w.Nodes[0], "mixed", "--rate", "100", "--blob", fmt.Sprint(2<<20))
	reader := w.app(w.Nodes[1], "reader")
	w.more(bank, 100)
	if got := nats.NumClients(); got < 3 {
		t.Errorf("%d clients of the NATS server, want one of each node", got)
	}
	nats.Shutdown()
	w.more(bank, 200)
	nats = start()
	w.more(bank, 200)
	w.more(mixed, 50)
	w.finish(bank, mixed, reader)
	t.Logf("%+v", w.verify())
}

func portOf(t *testing.T, url string) (port int) {
	t.Helper()
	if _, err := fmt.Sscanf(url, "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatalf("address of the NATS server %q: %v", url, err)
	}
	return port
}
