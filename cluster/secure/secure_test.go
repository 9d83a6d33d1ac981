package secure_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/cluster/secure"
)

// sample is the token whose derived values are part of the protocol.
const sample = "lsn1-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"

func parse(t *testing.T, s string) secure.Token {
	t.Helper()
	token, err := secure.ParseToken(s)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestDerivedKeysAreFixed: another version of the program must derive the same.
func TestDerivedKeysAreFixed(t *testing.T) {
	token := parse(t, sample)
	if got, want := token.KeyID(), wantKeyID; got != want {
		t.Errorf("key ID is %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%x", token.GossipKey()), wantGossipKey; got != want {
		t.Errorf("gossip key is %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%x", token.SealingKey()), wantSealingKey; got != want {
		t.Errorf("sealing key is %s, want %s", got, want)
	}
}

func TestParseToken(t *testing.T) {
	token := secure.NewToken()
	for _, text := range []string{
		token.Reveal(), strings.ToUpper(token.Reveal()), "  " + token.Reveal() + "\n",
	} {
		if got := parse(t, text); !got.Equal(token) {
			t.Errorf("%q is another token", text)
		}
	}
	other := sample[:len(sample)-1] + "r" // spare bits set: same secret, another text
	for _, text := range []string{
		"", "lsn1-", "lsn2" + sample[4:], sample[5:], sample[:len(sample)-1], sample + "a",
		strings.Replace(sample, "a", "1", 3), other, "lsn1-" + strings.Repeat("é", 26),
	} {
		_, err := secure.ParseToken(text)
		if !errors.Is(err, secure.ErrToken) {
			t.Errorf("%q: %v", text, err)
		}
		if len(text) > 40 && strings.Contains(err.Error(), text[10:40]) {
			t.Errorf("the error shows the text: %v", err)
		}
	}
	if parse(t, sample).Equal(token) || (secure.Token{}).Equal(token) || !(secure.Token{}).Equal(secure.Token{}) {
		t.Error("Equal is wrong")
	}
}

// TestTokenIsNotPrinted: by no verb, nor from within something else.
func TestTokenIsNotPrinted(t *testing.T) {
	token := parse(t, sample)
	type config struct {
		Public  secure.Token
		private secure.Token
		pointer *secure.Token
	}
	c := config{token, token, &token}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	logger.Info("start", "token", token, "config", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "token", token, "config", c)
	marshalled, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"v": print("%v", token, c), "+v": print("%+v", token, c), "#v": print("%#v", token, c),
		"x": print("%x", token, c), "s": print("%s", token, c), "d": print("%d", token, c), "q": print("%q", token, c),
		"log": log.String(), "JSON": string(marshalled), "error": fmt.Errorf("with %w %v", errors.New("x"), token).Error(),
	} {
		for _, secret := range []string{sample[5:20], "000102030405", "0 1 2 3 4 5", "0x0, 0x1, 0x2"} {
			if strings.Contains(strings.ToLower(text), secret) {
				t.Errorf("%s shows the secret: %s", what, text)
			}
		}
	}
	if !strings.Contains(log.String(), token.KeyID()) {
		t.Errorf("the log does not name the token: %s", log.String())
	}
}

// print keeps vet from checking the verb.
func print(verb string, args ...any) (text string) {
	for _, arg := range args {
		text += fmt.Sprintf(verb, arg) + " "
	}
	return text
}

func TestCheckBearer(t *testing.T) {
	token := parse(t, sample)
	for header, want := range map[string]bool{
		"Bearer " + sample: true, "bearer  " + sample: true, "Bearer " + strings.ToUpper(sample): true,
		"": false, "Bearer": false, "Bearer ": false, sample: false, "Basic " + sample: false,
		"Bearer " + secure.NewToken().Reveal(): false, "Bearer " + sample + "x": false,
	} {
		if got := token.CheckBearer(header); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
	if (secure.Token{}).CheckBearer("Bearer " + (secure.Token{}).Reveal()) {
		t.Error("no token was accepted as a token")
	}
}

func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, secure.TokenFile)
	if _, err := secure.LoadToken(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load nothing: %v", err)
	}
	token, created, err := secure.LoadOrCreateToken(dir)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	again, created, err := secure.LoadOrCreateToken(dir)
	if err != nil || created || !again.Equal(token) {
		t.Errorf("second time: %v, %v, %v", again, created, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if err := secure.SaveToken(dir, token); err != nil {
		t.Errorf("save the same: %v", err)
	}
	if err := secure.SaveToken(dir, secure.NewToken()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("save another: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := secure.LoadOrCreateToken(dir); !errors.Is(err, secure.ErrTokenFile) {
		t.Errorf("open to others: %v", err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("rubbish"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := secure.LoadOrCreateToken(dir); !errors.Is(err, secure.ErrToken) {
		t.Errorf("rubbish: %v", err)
	}
}

// handshake connects two ends in memory and returns which node the server sees,
// and what each end makes of it.
func handshake(client, server *tls.Config) (peer string, clientErr, serverErr error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	accepted := tls.Server(b, server)
	go func() {
		err := accepted.Handshake()
		if err != nil {
			b.Close()
		} else if peer, err = secure.PeerID(accepted.ConnectionState()); err == nil {
			_, err = accepted.Write([]byte("x"))
		}
		done <- err
	}()
	dialled := tls.Client(a, client)
	if clientErr = dialled.Handshake(); clientErr == nil {
		_, clientErr = dialled.Read(make([]byte, 1))
	}
	a.Close()
	serverErr = <-done
	return peer, clientErr, serverErr
}

func TestHandshake(t *testing.T) {
	token, foreign := secure.NewToken(), secure.NewToken()
	credentials := func(token secure.Token, id string) *secure.Credentials {
		c, err := secure.NewCredentials(token, id)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b, x := credentials(token, "node-a"), credentials(token, "node-b"), credentials(foreign, "node-x")
	known := func() []string { return []string{"one", "two"} }

	peer, clientErr, serverErr := handshake(a.ClientConfig("two"), b.ServerConfig(known))
	if clientErr != nil || serverErr != nil || peer != "node-a" {
		t.Errorf("two nodes: %v, %v, %q", clientErr, serverErr, peer)
	}
	if _, _, serverErr = handshake(x.ClientConfig("two"), b.ServerConfig(known)); !errors.Is(serverErr, secure.ErrKeyID) {
		t.Errorf("foreign client: %v", serverErr)
	}
	for what, alpn := range map[string][]string{"unknown protocol": {"three"}, "no protocol": nil} {
		client := a.ClientConfig("")
		client.NextProtos = alpn
		if _, clientErr, serverErr = handshake(client, b.ServerConfig(known)); clientErr == nil || serverErr == nil {
			t.Errorf("%s: %v, %v", what, clientErr, serverErr)
		}
	}
	none := func() []string { return nil }
	if _, clientErr, serverErr = handshake(a.ClientConfig("one"), b.ServerConfig(none)); clientErr == nil || serverErr == nil {
		t.Errorf("nothing is spoken: %v, %v", clientErr, serverErr)
	}
}

func TestNewCredentialsRefuses(t *testing.T) {
	if _, err := secure.NewCredentials(secure.Token{}, "a"); err == nil {
		t.Error("no token")
	}
	for _, id := range []string{"", strings.Repeat("x", 65)} {
		if _, err := secure.NewCredentials(secure.NewToken(), id); err == nil {
			t.Errorf("ID %q", id)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(sample)
	f.Add("lsn1-")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := secure.ParseToken(text)
		if err != nil {
			return
		}
		if got, want := token.Reveal(), strings.ToLower(strings.TrimSpace(text)); got != want {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
