package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// logger logs to standard error: text for people on a terminal, JSON otherwise.
func (a *app) logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.level)); err != nil {
		level = slog.LevelInfo // the command line takes no other words than those
	}
	if !isTerminal(a.err) {
		return slog.New(slog.NewJSONHandler(a.err, &slog.HandlerOptions{Level: level}))
	}
	shortTime := func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && attr.Key == slog.TimeKey {
			attr.Value = slog.StringValue(attr.Value.Time().Format("15:04:05.000"))
		}
		return attr
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level, ReplaceAttr: shortTime}))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
