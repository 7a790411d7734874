// Package logs makes the program's logger: lines for people, coloured on a terminal, or JSON for machines.
package logs

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// Format is how log lines are written.
type Format string

// The formats. FormatAuto is FormatText with colour where the lines go to a terminal that wants it.
const (
	FormatAuto Format = "auto"
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// timeFormat is RFC 3339 in milliseconds, of which a person at a terminal only needs the time of day.
const (
	timeFormat         = "2006-01-02T15:04:05.000Z07:00"
	terminalTimeFormat = "15:04:05.000"
)

// Options say how to log. The zero value writes text from level info on.
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
	colour := o.Format == FormatAuto && WantsColour(w, o.Lookup)
	layout := timeFormat
	if colour {
		layout = terminalTimeFormat
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{Level: o.Level, TimeFormat: layout, NoColor: !colour}))
}

// WantsColour reports that w is a terminal whose user has not asked for plain text (NO_COLOR, see no-color.org, or
// TERM=dumb).
func WantsColour(w io.Writer, lookup func(string) (string, bool)) bool {
	if lookup != nil {
		if v, _ := lookup("NO_COLOR"); v != "" {
			return false
		}
		if v, _ := lookup("TERM"); v == "dumb" {
			return false
		}
	}
	return IsTerminal(w)
}

// IsTerminal reports that f, a reader or a writer, is a terminal.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// plainValues writes durations as numbers of milliseconds, under names that say so, where slog's JSON writes nanoseconds under names
// that don't.
func plainValues(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.Float64(a.Key+"_ms", float64(a.Value.Duration().Microseconds())/1000)
	}
	return a
}

// Libraries returns where the standard library's log is to write, so that what libraries say of their own accord becomes lines of
// this log: for instance net/http's of a response that nobody had asked for.
func Libraries(log *slog.Logger) io.Writer { return libraries{log} }

type libraries struct{ log *slog.Logger }

func (l libraries) Write(p []byte) (int, error) {
	l.log.Warn("a library says", "text", strings.TrimSpace(string(p)))
	return len(p), nil
}
