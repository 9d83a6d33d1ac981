package walstream

import (
	"cmp"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestPositionText(t *testing.T) {
	pos := Position{Epoch: 3, TXID: 0x123, Checksum: ChecksumFlag | 0xabc}
	const text = "0000000000000003/0000000000000123/8000000000000abc"
	if got := pos.String(); got != text {
		t.Errorf("String: %s", got)
	}
	if got, err := ParsePosition(text); got != pos || err != nil {
		t.Errorf("ParsePosition: %v, %v", got, err)
	}
	if b, err := json.Marshal(map[string]Position{"at": pos}); string(b) != `{"at":"`+text+`"}` || err != nil {
		t.Errorf("JSON: %s, %v", b, err)
	}
	for _, bad := range []string{"", "/", "//", text[1:], text + "0", text + "/", strings.Replace(text, "3", "g", 1), strings.ReplaceAll(text, "/", " ")} {
		if got, err := ParsePosition(bad); err == nil {
			t.Errorf("ParsePosition(%q) = %v", bad, got)
		}
	}
}

func TestPositionOrder(t *testing.T) {
	ascending := []Position{{}, {Epoch: 1, TXID: 1}, {Epoch: 1, TXID: 9}, {Epoch: 2, TXID: 1}}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := a.Compare(b), cmp.Compare(i, j); got != want {
				t.Errorf("%v against %v: %d, want %d", a, b, got, want)
			}
		}
	}
	other := Position{Epoch: 2, TXID: 1, Checksum: 5} // the content does not order
	if other.Compare(ascending[3]) != 0 || other == ascending[3] {
		t.Error("positions that differ by content only")
	}
	if !(Position{}).IsZero() || other.IsZero() {
		t.Error("IsZero")
	}
}

func TestBookmark(t *testing.T) {
	pos := Position{Epoch: 7, TXID: 1 << 40, Checksum: ChecksumFlag | 99}
	mark := pos.Bookmark()
	for _, text := range []string{mark, strings.ToUpper(mark)} {
		if got, err := ParseBookmark(text); got != pos || err != nil {
			t.Errorf("ParseBookmark(%s): %v, %v", text, got, err)
		}
	}
	for i := len("lsb1-"); i < len(mark); i++ { // each letter counts, but for spare bits of the last
		changed := []byte(mark)
		changed[i] = map[bool]byte{true: 'b', false: 'a'}[changed[i] == 'a']
		if got, err := ParseBookmark(string(changed)); err == nil && got != pos {
			t.Errorf("%s is taken for %v", changed, got)
		}
	}
	for _, bad := range []string{"", "lsb1-", mark[1:], mark[:len(mark)-1], mark + "0", "lsb2" + mark[4:]} {
		if _, err := ParseBookmark(bad); !errors.Is(err, ErrBookmark) {
			t.Errorf("ParseBookmark(%q): %v", bad, err)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"app": true, "A-b_c.9": true, strings.Repeat("x", 64): true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "ä": false, strings.Repeat("x", 65): false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) is %v", name, !want)
		}
	}
}

// Whatever is parsed says the same when it is written again.
func FuzzPosition(f *testing.F) {
	pos := Position{Epoch: 1, TXID: 2, Checksum: ChecksumFlag}
	f.Add(pos.String())
	f.Add(pos.Bookmark())
	f.Add("lsb1-0/0")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePosition(text); err == nil && p.String() != strings.ToLower(text) {
			t.Errorf("%q is taken for %v", text, p)
		}
		if p, err := ParseBookmark(text); err == nil {
			if q, err := ParseBookmark(p.Bookmark()); q != p || err != nil {
				t.Errorf("%q is taken for %v, whose bookmark is %v, %v", text, p, q, err)
			}
		}
	})
}
