package secure

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// ErrToken is wrapped by what [ParseToken] returns for text that is no token.
var ErrToken = errors.New("not a cluster token")

const (
	tokenPrefix = "lsn1-"
	secretSize  = 32
)

var tokenEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Token is the secret of a cluster, compared with [Token.Equal]. The zero value
// means "none". Printing, logging or marshalling one shows its key ID only.
type Token struct {
	// A function, because fmt can't call String on an unexported field of some
	// other struct: it would print bytes there, also behind a pointer.
	secret func() [secretSize]byte
}

// NewToken makes a random token.
func NewToken() Token {
	var secret [secretSize]byte
	rand.Read(secret[:]) // never returns an error
	return newToken(secret)
}

func newToken(secret [secretSize]byte) Token {
	return Token{secret: func() [secretSize]byte { return secret }}
}

// ParseToken is the inverse of [Token.Reveal]. White space around the text is
// ignored and letters may be of either case. The error never contains the text.
func ParseToken(s string) (Token, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	text, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("parse token: %w: it must begin with %q", ErrToken, tokenPrefix)
	}
	want := tokenEncoding.EncodedLen(secretSize)
	if len(text) != want {
		return Token{}, fmt.Errorf("parse token: %w: %d letters after %q, want %d", ErrToken, len(text), tokenPrefix, want)
	}
	secret, err := tokenEncoding.DecodeString(strings.ToUpper(text))
	if err != nil || len(secret) != secretSize {
		return Token{}, fmt.Errorf("parse token: %w: letters that no token has", ErrToken)
	}
	t := newToken([secretSize]byte(secret))
	// The last letter has bits to spare, and two texts must not be one token.
	if t.Reveal() != s {
		return Token{}, fmt.Errorf("parse token: %w: letters that no token has", ErrToken)
	}
	return t, nil
}

// Reveal returns the token as text, for its file and for the person who asked
// for it. Nothing else may print it.
func (t Token) Reveal() string {
	return tokenPrefix + strings.ToLower(tokenEncoding.EncodeToString(t.bytes()))
}

// IsZero tells whether there is no token.
func (t Token) IsZero() bool { return t.secret == nil }

// Equal compares in constant time.
func (t Token) Equal(u Token) bool {
	return t.IsZero() == u.IsZero() && subtle.ConstantTimeCompare(t.bytes(), u.bytes()) == 1
}

// bytes returns the secret; that of no token is all zeros, which nobody draws.
func (t Token) bytes() []byte {
	if t.secret == nil {
		return make([]byte, secretSize)
	}
	secret := t.secret()
	return secret[:]
}

// String returns the key ID, never the secret.
func (t Token) String() string {
	if t.IsZero() {
		return "token(none)"
	}
	return "token(" + t.KeyID() + ")"
}

// GoString is [Token.String], so that %#v does not show the secret.
func (t Token) GoString() string { return t.String() }

// Format is [Token.String] for every verb, so that none shows the secret.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue is [Token.String].
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText is [Token.String]: a token that is marshalled by accident is not
// given away, and can't be read back.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// CheckBearer tells whether the value of an HTTP Authorization header is
// "Bearer TOKEN" with this token. The time that it takes says nothing about the
// token. It is false for the zero token.
func (t Token) CheckBearer(header string) bool {
	scheme, text, ok := strings.Cut(strings.TrimSpace(header), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || t.IsZero() {
		return false
	}
	// Hashing makes both sides of equal length, whatever was sent.
	got := sha256.Sum256(bytes.ToLower([]byte(strings.TrimSpace(text))))
	want := sha256.Sum256([]byte(t.Reveal()))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
