package identity

import (
	"encoding/json"
	"testing"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"node":"0123456789abcdefghijklmnop","created":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"version":1,"node":"0123456789abcdefghijklmnop","cluster":"0123456789abcdefghijklmnop"}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parse(text)
		if err != nil {
			return
		}
		if !ValidID(got.Node) || got.Cluster != "" && !ValidID(got.Cluster) {
			t.Errorf("accepted %+v", got)
		}
		again, err := json.Marshal(got)
		if err != nil { // a year that JSON does not know
			return
		}
		if back, err := parse(again); err != nil || !back.Created.Equal(got.Created) || back.Node != got.Node {
			t.Errorf("%s becomes %+v, %v", again, back, err)
		}
	})
}
