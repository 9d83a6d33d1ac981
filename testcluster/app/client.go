package app

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// busyTimeout is what a careful application sets.
const busyTimeout = time.Second

func newClient(kind, db string) (client, error) {
	switch kind {
	case "go":
		c := &goClient{db: db}
		return c, c.reopen()
	case "shell":
		c := &lineClient{ask: shellQuery, argv: []string{"sqlite3", "-batch", "-bail", "-cmd",
			fmt.Sprintf(".timeout %d", busyTimeout.Milliseconds()), db}}
		return c, c.reopen()
	case "python":
		c := &lineClient{ask: "look\n", again: "open\n", argv: []string{"python3", "-u", "-c", pythonReader, db,
			fmt.Sprint(busyTimeout.Seconds()), lookQuery}}
		return c, c.reopen()
	}
	return nil, fmt.Errorf("client %q: want go, shell or python", kind)
}

// goClient reads through this module's own SQLite.
type goClient struct {
	db   string
	conn *Conn
}

func (c *goClient) look() (line string, err error) {
	err = c.conn.Row(lookQuery, &line)
	return line, err
}

func (c *goClient) reopen() (err error) {
	err = c.conn.Close()
	c.conn = nil
	if err != nil {
		return err
	}
	c.conn, err = Open(c.db, Settings{Busy: busyTimeout})
	return err
}

func (c *goClient) close() error { return c.conn.Close() }

// shellQuery is one line, since the shell answers when it has read one.
var shellQuery = strings.ReplaceAll(lookQuery, "\n", " ") + ";\n"

//go:embed reader.py
var pythonReader string

// lineClient is another program that answers a line on its input with a line on
// its output: the sqlite3 shell, or Python's module. They come with a SQLite of
// their own, of another version than ours.
type lineClient struct {
	argv  []string
	ask   string // what is sent to have it look
	again string // what is sent to have it open again; none: a new process

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	say *tail
}

func (c *lineClient) look() (string, error) {
	if _, err := io.WriteString(c.in, c.ask); err != nil {
		return "", c.died(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return "", c.died(err)
	}
	return strings.TrimSpace(line), nil
}

func (c *lineClient) died(err error) error {
	c.cmd.Wait()
	return fmt.Errorf("%s: %w: %s", c.argv[0], err, c.say)
}

func (c *lineClient) reopen() (err error) {
	if c.cmd != nil && c.again != "" {
		if _, err := io.WriteString(c.in, c.again); err != nil {
			return c.died(err)
		}
		return nil
	}
	if err := c.close(); err != nil {
		return err
	}
	c.cmd, c.say = exec.Command(c.argv[0], c.argv[1:]...), &tail{}
	c.cmd.Stderr = c.say
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, outErr := c.cmd.StdoutPipe()
	in, inErr := c.cmd.StdinPipe()
	if err := errors.Join(outErr, inErr); err != nil {
		return err
	}
	c.in, c.out = in, bufio.NewReader(out)
	return c.cmd.Start()
}

func (c *lineClient) close() error {
	if c.cmd == nil {
		return nil
	}
	err := errors.Join(c.in.Close(), c.cmd.Wait())
	c.cmd = nil
	return err
}
