package secure

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lsnode/lsnode/cluster/internal/durable"
)

// TokenFile is the name of the token's file in a data dir.
const TokenFile = "cluster.token"

// ErrTokenFile is wrapped when others than the owner could read a token file.
var ErrTokenFile = errors.New("others than the owner have access to the token file")

const maxTokenFile = 4096

// LoadToken reads a token from a file. [fs.ErrNotExist] is wrapped if there is
// none, [ErrTokenFile] if its mode lets anyone but the owner at it: who finds
// out late that the secret was open must be told early.
func LoadToken(path string) (t Token, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return Token{}, fmt.Errorf("read token %s: %w (mode %04o): set it to 0600, and make a new token if it may have been read",
			path, ErrTokenFile, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	if t, err = ParseToken(string(text)); err != nil {
		return Token{}, fmt.Errorf("read %s: %w", path, err)
	}
	return t, nil
}

// SaveToken writes the token into a data dir, mode 0600; durable on return. The
// same token may be there already; another one is not replaced, and the error
// wraps [fs.ErrExist].
func SaveToken(dataDir string, t Token) error {
	path := filepath.Join(dataDir, TokenFile)
	err := durable.CreateFile(path, []byte(t.Reveal()+"\n"), 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	old, loadErr := LoadToken(path)
	if loadErr != nil {
		return loadErr
	}
	if !old.Equal(t) {
		return fmt.Errorf("save %v: the data dir has %v: %w", t, old, fs.ErrExist)
	}
	return nil
}

// LoadOrCreateToken returns the token of a data dir, or makes one if it has
// none, durable on return; created says which.
func LoadOrCreateToken(dataDir string) (t Token, created bool, err error) {
	t, err = LoadToken(filepath.Join(dataDir, TokenFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return t, false, err
	}
	t = NewToken()
	return t, true, SaveToken(dataDir, t)
}
