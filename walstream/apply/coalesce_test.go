package apply_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
)

func seq(txns ...*walstream.Txn) iter.Seq2[*walstream.Txn, error] {
	return func(yield func(*walstream.Txn, error) bool) {
		for _, t := range txns {
			if !yield(t, nil) {
				return
			}
		}
	}
}

// script makes transactions of words like "1a 2b =2": pages with content, and
// the size after them. "epoch" is an epoch record.
func script(lines ...[]any) []*walstream.Txn {
	pos := walstream.Position{Epoch: 1, TXID: 10}
	var txns []*walstream.Txn
	for _, line := range lines {
		pre := pos
		t := &walstream.Txn{Header: walstream.Header{Database: "app", Kind: walstream.KindPages, PageSize: 512, Pre: pre}}
		pages := map[uint32][]byte{}
		for _, word := range line {
			var no, size uint32
			var c byte
			switch w := word.(string); {
			case w == "epoch":
				t.Kind, t.PageSize = walstream.KindEpoch, 0
			case scan(w, "=%d", &size):
				t.PageCount = size
			case scan(w, "%d%c", &no, &c):
				pages[no] = bytes.Repeat([]byte{c}, 512)
			}
		}
		if t.Kind == walstream.KindEpoch {
			pos.Epoch++
		} else {
			pos.TXID++
		}
		t.Post, t.Pages = pos, pagesOf(pages)
		txns = append(txns, t)
	}
	return txns
}

func scan(word, format string, to ...any) bool {
	n, err := fmt.Sscanf(word, format, to...)
	return err == nil && n == len(to)
}

func words(s ...any) []any { return s }

func show(t testing.TB, txn *walstream.Txn) string {
	t.Helper()
	if txn == nil {
		return "nothing"
	}
	s := fmt.Sprintf("kind %d", txn.Kind)
	for p, err := range txn.Pages {
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %d%c", p.No, p.Data[0])
	}
	return fmt.Sprintf("%s =%d %d/%d-%d/%d", s, txn.PageCount, txn.Pre.Epoch, txn.Pre.TXID, txn.Post.Epoch, txn.Post.TXID)
}

func TestCoalesce(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []*walstream.Txn
		want string
	}{
		{"nothing", nil, "nothing"},
		{"one", script(words("1a", "3a", "=3")), "kind 1 1a 3a =3 1/10-1/11"},
		{"newest image", script(words("1a", "2a", "=2"), words("2b", "=2"), words("1c", "=2")), "kind 1 1c 2b =2 1/10-1/13"},
		{"shrinks", script(words("1a", "2a", "3a", "=3"), words("1b", "=2")), "kind 1 1b 2a =2 1/10-1/12"},
		{"shrinks and grows", script(words("1a", "2a", "3a", "=3"), words("1b", "=1"), words("2c", "3c", "=3")), "kind 1 1b 2c 3c =3 1/10-1/13"},
		{"old image beyond a cut", script(words("1a", "2a", "3a", "=3"), words("1b", "=1"), words("3c", "=3")), "kind 1 1b 3c =3 1/10-1/13"},
		{"epoch only", script(words("epoch"), words("epoch")), "kind 2 =0 1/10-3/10"},
		{"epoch between", script(words("1a", "=1"), words("epoch"), words("1b", "=1")), "kind 1 1b =1 1/10-2/12"},
		{"epoch first", script(words("epoch"), words("1b", "=1")), "kind 1 1b =1 1/10-2/11"},
	} {
		for _, memory := range []int{0, 512} { // from memory, and page by page from the input
			got, err := apply.Coalesce(seq(tt.in...), memory)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if s := show(t, got); s != tt.want {
				t.Errorf("%s, memory %d: %s, want %s", tt.name, memory, s, tt.want)
			}
		}
	}
}

func TestCoalesceRefuses(t *testing.T) {
	txns := script(words("1a", "=1"), words("1b", "=1"), words("1c", "=1"))
	base := *txns[1]
	base.Kind = walstream.KindBase
	size := *txns[1]
	size.PageSize = 1024
	beyond := *txns[0]
	beyond.Pages = pagesOf(map[uint32][]byte{7: make([]byte, 512)})
	for name, in := range map[string]iter.Seq2[*walstream.Txn, error]{
		"gap": seq(txns[0], txns[2]), "base": seq(txns[0], &base), "page size": seq(txns[0], &size), "page beyond the end": seq(&beyond),
	} {
		if _, err := apply.Coalesce(in, 0); !errors.Is(err, apply.ErrNotOneLine) && !errors.Is(err, apply.ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	broken := errors.New("broken")
	in := func(yield func(*walstream.Txn, error) bool) { _ = yield(txns[0], nil) && yield(nil, broken) }
	if _, err := apply.Coalesce(in, 0); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// What the log gets at its end after the first walk is left out.
func TestCoalesceGrowingInput(t *testing.T) {
	txns := script(words("1a", "2a", "=2"), words("1b", "=2"))
	n := 1
	in := func(yield func(*walstream.Txn, error) bool) { seq(txns[:n]...)(yield) }
	got, err := apply.Coalesce(in, 512)
	if err != nil {
		t.Fatal(err)
	}
	n = 2
	if s := show(t, got); s != "kind 1 1a 2a =2 1/10-1/11" {
		t.Fatal(s)
	}
}

// Whatever is coalesced gives the same as applying one by one.
func TestCoalesceEqualsSteps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var lines [][]any
		state := map[uint32]byte{}
		size := uint32(rng.IntN(5) + 1)
		for i := range rng.IntN(12) + 1 {
			old := size
			size = uint32(rng.IntN(12) + 1)
			var line []any
			for no := uint32(1); no <= size; no++ {
				if no > old || i == 0 || rng.IntN(3) == 0 { // growth comes with images
					c := byte('a' + rng.IntN(26))
					line = append(line, fmt.Sprintf("%d%c", no, c))
					state[no] = c
				}
			}
			for no := range state {
				if no > size {
					delete(state, no)
				}
			}
			lines = append(lines, append(line, fmt.Sprintf("=%d", size)))
		}
		got, err := apply.Coalesce(seq(script(lines...)...), 512*(1+rng.IntN(8)))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for p, err := range got.Pages {
			if err != nil || state[p.No] != p.Data[0] {
				t.Fatalf("page %d is %c, want %c, %v; %v", p.No, p.Data[0], state[p.No], err, lines)
			}
			n++
		}
		if n != len(state) || got.PageCount != size {
			t.Fatalf("%d pages of %d, want %d of %d: %v", n, got.PageCount, len(state), size, lines)
		}
	}
}
