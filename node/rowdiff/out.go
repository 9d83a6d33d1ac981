package rowdiff

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Out is where SQL is written. The first error stays: see [Out.Flush].
type Out struct{ w *bufio.Writer }

// NewOut returns an Out that writes to w.
func NewOut(w io.Writer) Out { return Out{bufio.NewWriter(w)} }

// Flush writes what is buffered, and returns the first error of all writing.
func (o Out) Flush() error {
	if err := o.w.Flush(); err != nil {
		return fmt.Errorf("write differences: %w", err)
	}
	return nil
}

// err returns the first error so far.
func (o Out) err() error {
	_, err := o.w.Write(nil)
	return err
}

// Comment writes text so that no part of it is taken for a statement.
func (o Out) Comment(format string, args ...any) {
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		_, _ = o.w.WriteString("-- " + printable(line) + "\n") // see err
	}
}

// statement writes a statement as it is.
func (o Out) statement(sql string) {
	_, _ = o.w.WriteString(strings.TrimRight(printable(sql), "; \n") + ";\n")
}

// printable leaves out what would move a terminal's cursor. Values never have
// any of it: it is for names and definitions.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' {
			return r
		}
		return ' '
	}, strings.TrimRight(s, "\r\n"))
}
