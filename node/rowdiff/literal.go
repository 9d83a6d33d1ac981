package rowdiff

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// identifier quotes a name.
func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoted quotes names.
func quoted(names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = identifier(name)
	}
	return all
}

// identifiers quotes names and puts commas between them.
func identifiers(names []string) string { return strings.Join(quoted(names), ", ") }

// literal writes a value as an SQL expression that has the same storage class
// and content. Nothing in it moves a terminal's cursor.
func literal(value any) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return real(v)
	case []byte:
		return fmt.Sprintf("X'%X'", v)
	case string:
		return text(v)
	}
	return fmt.Sprintf("NULL /* a value of the unknown type %T */", value)
}

func real(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "9e999"
	case math.IsInf(v, -1):
		return "-9e999"
	}
	s := strconv.FormatFloat(v, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// text quotes a string. Characters that can't be printed become char(N), so that
// the expression means the same in a database of any encoding.
func text(s string) string {
	if !utf8.ValidString(s) {
		return fmt.Sprintf("CAST(X'%X' AS TEXT)", s)
	}
	var parts []string
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			parts = append(parts, "'"+strings.ReplaceAll(plain.String(), "'", "''")+"'")
			plain.Reset()
		}
	}
	for _, r := range s {
		if unicode.IsPrint(r) {
			plain.WriteRune(r)
			continue
		}
		flush()
		parts = append(parts, fmt.Sprintf("char(%d)", r))
	}
	flush()
	switch len(parts) {
	case 0:
		return "''"
	case 1:
		return parts[0]
	}
	return "(" + strings.Join(parts, " || ") + ")"
}

// same tells whether two values are of one storage class and content.
func same(a, b any) bool {
	switch v := a.(type) {
	case []byte:
		w, ok := b.([]byte)
		return ok && bytes.Equal(v, w)
	case float64:
		w, ok := b.(float64)
		return ok && math.Float64bits(v) == math.Float64bits(w)
	}
	if _, ok := b.([]byte); ok {
		return false
	}
	return a == b
}
