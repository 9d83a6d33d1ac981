package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

func TestClient(t *testing.T) {
	var waited string
	b := &fakeBackend{
		status: follower(streaming(1.5)),
		wait: func(_ context.Context, db string, pos walstream.Position) error {
			waited = db + " " + pos.TXID.String()
			return nil
		},
	}
	var changed string
	b.change = func(_ context.Context, what string) error { changed = what; return nil }
	c, stop := start(t, Config{Backend: b})
	st, err := c.Status(t.Context())
	if err != nil || st.Node != "n2" || len(st.Databases) != 1 || st.Databases[0] != streaming(1.5) || st.Archive.State != ArchiveOff {
		t.Errorf("status %+v, %v", st, err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	pos := walstream.Position{Epoch: 1, TXID: 2, Checksum: walstream.ChecksumFlag}
	reached, err := c.Wait(t.Context(), "app", pos.Bookmark(), time.Second)
	if err != nil || reached != (Reached{pos.Bookmark(), "0000000000000002"}) || waited != "app 0000000000000002" {
		t.Errorf("wait: %+v, %v, backend saw %q", reached, err, waited)
	}
	if switched, err := c.Switchover(t.Context(), "n1", time.Second); err != nil || switched != (Switched{"n1", 3}) || changed != "switchover n1" {
		t.Errorf("switchover: %+v, %v, backend saw %q", switched, err, changed)
	}
	if err := c.Remove(t.Context(), "a&b=c d", time.Second); err != nil || changed != "remove a&b=c d" {
		t.Errorf("remove: %v, backend saw %q", err, changed)
	}
	if err := c.Leave(t.Context(), time.Second); err != nil || changed != "leave" {
		t.Errorf("leave: %v, backend saw %q", err, changed)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestClientErrors(t *testing.T) {
	for _, tt := range []struct {
		code int
		is   error
	}{{410, ErrLineLost}, {409, ErrRefused}, {504, context.DeadlineExceeded}} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, tt.code, "said so")
		}))
		c := &Client{Address: srv.Listener.Addr().String()}
		err := c.Leave(t.Context(), time.Second)
		if !errors.Is(err, tt.is) || err.Error() != "said so" {
			t.Errorf("%d: %v", tt.code, err)
		}
		srv.Close()
	}
	for _, body := range []string{"<html>not found</html>", `{}`, ``} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = w.Write([]byte(body))
		}))
		address := srv.Listener.Addr().String()
		err := (&Client{Address: address}).Leave(t.Context(), time.Second)
		want := "ask node at " + address + ": it answered 404 Not Found without saying why: is it an lsnode?"
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v\nwant %s", body, err, want)
		}
		srv.Close()
	}
}

func TestAddress(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadAddress(dir); !errors.Is(err, ErrNoAddress) {
		t.Errorf("no file: %v", err)
	}
	for _, tt := range []struct{ listens, dial string }{
		{"127.0.0.1:7480", "127.0.0.1:7480"},
		{"0.0.0.0:1", "127.0.0.1:1"},
		{"[::]:2", "127.0.0.1:2"},
		{"[fe80::1]:3", "[fe80::1]:3"},
	} {
		address, err := net.ResolveTCPAddr("tcp", tt.listens)
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteAddress(dir, address); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadAddress(dir); err != nil || got != tt.dial {
			t.Errorf("%s: read %s, %v, want %s", tt.listens, got, err, tt.dial)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for _, body := range []string{"", "{", `{"address":"x"}`, "[]"} {
		if err := os.WriteFile(filepath.Join(dir, addressFile), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadAddress(dir); err == nil {
			t.Errorf("%q: read %s", body, got)
		}
	}
}

func TestReadToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), TokenFile)
	for _, tt := range []struct{ content, token string }{{" lsn1-x\n", "lsn1-x"}, {"\n", ""}} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadToken(path); got != tt.token || (err == nil) != (tt.token != "") {
			t.Errorf("%q: %q, %v", tt.content, got, err)
		}
	}
}
