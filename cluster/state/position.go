package state

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Position says where the log of a database stands: after which transaction,
// logged in which epoch, with what content. It is comparable; the zero value
// means "nothing yet".
type Position struct {
	Epoch    uint64
	TXID     uint64
	Checksum uint64
}

// IsZero tells whether there is nothing yet.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions by (epoch, TXID): the higher one is more advanced.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Epoch, q.Epoch); c != 0 {
		return c
	}
	return cmp.Compare(p.TXID, q.TXID)
}

// String returns "EPOCH/TXID/CHECKSUM", each as 16 hex digits.
func (p Position) String() string {
	return fmt.Sprintf("%016x/%016x/%016x", p.Epoch, p.TXID, p.Checksum)
}

// MarshalText returns [Position.String]; it is the form in every JSON of the
// cluster.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of [Position.MarshalText]. It refuses any other
// form.
func (p *Position) UnmarshalText(b []byte) error {
	if len(b) != 3*16+2 {
		return fmt.Errorf("parse position of %d bytes: not of the form EPOCH/TXID/CHECKSUM", len(b))
	}
	var n [3]uint64
	for i, part := range strings.SplitN(string(b), "/", 3) {
		v, err := strconv.ParseUint(part, 16, 64)
		if err != nil || len(part) != 16 {
			return fmt.Errorf("parse position %q: not of the form EPOCH/TXID/CHECKSUM", b)
		}
		n[i] = v
	}
	*p = Position{n[0], n[1], n[2]}
	return nil
}
