package oracle

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Log is one writer's record. One goroutine uses it; several processes may have
// a log each, never share one.
type Log struct {
	file *os.File
	next int64
	line []byte
}

// OpenLog opens a writer's record for appending and finds where it stopped.
func OpenLog(path string, worker int64) (*Log, error) {
	notes := &Record{rows: map[Key]entry{}}
	if _, err := os.Stat(path); err == nil {
		if err := notes.read(path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open record of commits: %w", err)
	}
	l := &Log{file: f, next: 1}
	for k := range notes.rows {
		l.next = max(l.next, k.Seq+1)
	}
	if len(notes.rows) == 0 {
		_, err = fmt.Fprintf(f, "W %d\n", worker)
	}
	return l, err
}

// Next is the first sequence number that the record does not know. None is ever
// used twice.
func (l *Log) Next() int64 { return l.next }

// Intend notes that row seq is about to be committed.
func (l *Log) Intend(seq int64, crc uint32) error {
	l.next = max(l.next, seq+1)
	return l.note("I %d %08x\n", seq, crc)
}

// Committed notes that COMMIT has returned.
func (l *Log) Committed(seq int64) error { return l.note("C %d\n", seq) }

// Aborted notes that the transaction was rolled back.
func (l *Log) Aborted(seq int64) error { return l.note("A %d\n", seq) }

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }

func (l *Log) note(format string, args ...any) error {
	l.line = fmt.Appendf(l.line[:0], format, args...)
	if _, err := l.file.Write(l.line); err != nil {
		return fmt.Errorf("note commit: %w", err)
	}
	return nil
}

// Key names one row of the register.
type Key struct {
	Worker, Seq int64
}

type state byte

const (
	doubtful  state = 'I'
	committed state = 'C'
	aborted   state = 'A'
)

type entry struct {
	crc   uint32
	state state
}

// Record is what all writers together noted.
type Record struct {
	rows map[Key]entry
}

// Read reads the records of several writers.
func Read(paths ...string) (*Record, error) {
	r := &Record{rows: map[Key]entry{}}
	for _, path := range paths {
		if err := r.read(path); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Committed counts the commits that held.
func (r *Record) Committed() int { return r.count(committed) }

// Doubtful counts those of which the writer never learned the outcome.
func (r *Record) Doubtful() int { return r.count(doubtful) }

func (r *Record) count(s state) (n int) {
	for _, e := range r.rows {
		if e.state == s {
			n++
		}
	}
	return n
}

// read reads one writer's record. A last line that was cut off by the writer's
// death is as if it had not been begun.
func (r *Record) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read record of commits: %w", err)
	}
	defer f.Close()
	var worker int64
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil // the end, perhaps in the middle of a line
		}
		if err := r.line(&worker, strings.TrimSuffix(line, "\n")); err != nil {
			return fmt.Errorf("read record of commits %s: %w", path, err)
		}
	}
}

func (r *Record) line(worker *int64, line string) error {
	var seq int64
	var crc uint32
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "W":
		_, err := fmt.Sscanf(rest, "%d", worker)
		return err
	case "I":
		if _, err := fmt.Sscanf(rest, "%d %x", &seq, &crc); err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		r.rows[Key{*worker, seq}] = entry{crc, doubtful}
		return nil
	case "C", "A":
		if _, err := fmt.Sscanf(rest, "%d", &seq); err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		k := Key{*worker, seq}
		e, ok := r.rows[k]
		if !ok || e.state != doubtful {
			return fmt.Errorf("line %q: not after an intent", line)
		}
		r.rows[k] = entry{e.crc, state(kind[0])}
		return nil
	}
	return fmt.Errorf("line %q: no such note", line)
}
