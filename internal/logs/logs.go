// Package logs makes the program's logger. It writes lines for people, coloured on a terminal, or
// JSON for machines.
package logs

import (
	"io"
	"log/slog"
	"strings"

	"github.com/lmittmann/tint"

	"github.com/rowhook/rowhook/internal/term"
)

// Format is the format of log lines.
type Format string

// The formats. FormatAuto is FormatText, with colour if [term.WantsColour].
const (
	FormatAuto Format = "auto"
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// timeFormat is RFC 3339 with milliseconds. On a terminal the time of day is enough.
const (
	timeFormat         = "2006-01-02T15:04:05.000Z07:00"
	terminalTimeFormat = "15:04:05.000"
)

// Options configure a logger. The zero value writes text from level info.
type Options struct {
	Level  slog.Leveler
	Format Format
	// Lookup reads the environment, for NO_COLOR and TERM. Optional.
	Lookup func(string) (string, bool)
}

// New returns a logger that writes to w.
func New(w io.Writer, o Options) *slog.Logger {
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	if o.Format == FormatJSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.Level, ReplaceAttr: plainValues}))
	}
	colour := o.Format == FormatAuto && term.WantsColour(w, o.Lookup)
	layout := timeFormat
	if colour {
		layout = terminalTimeFormat
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: o.Level, TimeFormat: layout, NoColor: !colour}))
}

// plainValues writes durations in milliseconds and adds _ms to their names. slog's JSON writes
// nanoseconds, and its names do not show the unit.
func plainValues(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.Float64(a.Key+"_ms", float64(a.Value.Duration().Microseconds())/1000)
	}
	return a
}

// Libraries returns a writer for the standard library's log. It turns messages of libraries, such
// as net/http's about an unsolicited response, into lines of this log.
func Libraries(log *slog.Logger) io.Writer { return libraries{log} }

type libraries struct{ log *slog.Logger }

func (l libraries) Write(p []byte) (int, error) {
	l.log.Warn("message from a library", "text", strings.TrimSpace(string(p)))
	return len(p), nil
}
