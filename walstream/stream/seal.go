package stream

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/lsnode/lsnode/walstream"
)

// ErrSealed says that a message could not be opened: it was made with another
// key, for another cluster, database or position, or it was changed.
var ErrSealed = errors.New("message does not open")

// Key is a secret with which messages on a NATS server of somebody else are
// sealed. ID says which key it is when keys are rotated; it travels in clear.
type Key struct {
	ID     uint32
	Secret [32]byte
}

// Sealer seals and opens messages of one cluster. It may be used by many at once.
type Sealer struct {
	cluster string
	newest  uint32 // the ID of the key that seals
	keys    map[uint32]cipher.AEAD
}

// NewSealer returns a Sealer that seals with the first key and opens with any.
func NewSealer(cluster string, keys ...Key) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("make sealer: no key")
	}
	if !validCluster(cluster) {
		return nil, fmt.Errorf("make sealer: cluster ID %q: want letters, digits, - and _", cluster)
	}
	s := &Sealer{cluster: cluster, newest: keys[0].ID, keys: make(map[uint32]cipher.AEAD, len(keys))}
	for _, k := range keys {
		aead, err := chacha20poly1305.NewX(k.Secret[:])
		if err != nil {
			return nil, fmt.Errorf("make sealer: %w", err)
		}
		s.keys[k.ID] = aead
	}
	return s, nil
}

// A sealed message:
//
//	version 1 | kind 0x80 1 | key ID 4 | position after it 24 | nonce 24 | sealed plain message
//
// Associated data are the bytes before the nonce, the cluster ID and the
// database's name, each with its length before it.
const sealedHead = 2 + 4 + 24

// seal appends the sealed form of a plain message.
func (s *Sealer) seal(b []byte, db string, post walstream.Position, plain []byte) []byte {
	aead := s.keys[s.newest]
	start := len(b)
	b = append(b, messageVersion, byte(sealedKind))
	b = binary.BigEndian.AppendUint32(b, s.newest)
	b = appendPosition(b, post)
	aad := s.associated(b[start:], db)
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // crypto/rand ends the program rather than fail
	return aead.Seal(append(b, nonce...), nonce, plain, aad)
}

// open returns the message inside a sealed one that came on db's subject.
func (s *Sealer) open(b []byte, db string) (*Message, error) {
	if len(b) < sealedHead+chacha20poly1305.NonceSizeX || len(b) > maxMessage {
		return nil, fmt.Errorf("open message of %d bytes: %w", len(b), walstream.ErrCorrupt)
	}
	if b[0] != messageVersion {
		return nil, fmt.Errorf("open message of version %d: %w", b[0], walstream.ErrVersion)
	}
	if MessageKind(b[1]) != sealedKind {
		return nil, fmt.Errorf("open message: %w: it is not sealed", ErrSealed)
	}
	r := &reader{b: b[2:]}
	id, post := r.u32(), r.position()
	nonce := r.take(chacha20poly1305.NonceSizeX)
	aead, ok := s.keys[id]
	if !ok {
		return nil, fmt.Errorf("open message: %w: key %08x is not ours", ErrSealed, id)
	}
	plain, err := aead.Open(nil, nonce, r.b, s.associated(b[:sealedHead], db))
	if err != nil {
		return nil, fmt.Errorf("open message: %w", ErrSealed)
	}
	m, err := decodeMessage(plain)
	if err != nil {
		return nil, fmt.Errorf("open message: %w", err)
	}
	if m.Header.Post != post || m.Header.Database != db {
		return nil, fmt.Errorf("open message: %w: database or position inside differs", ErrSealed)
	}
	return m, nil
}

func (s *Sealer) associated(head []byte, db string) []byte {
	b := append([]byte("lsnode live message"), head...)
	return appendName(appendName(b, s.cluster), db)
}
