package cli

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// show prints what dev does. It is safe for concurrent use.
type show struct {
	mu   sync.Mutex
	page *term.Page
}

func newShow(a *app) *show { return &show{page: a.page()} }

func (s *show) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page.Printf(format, args...)
}

// started prints what runs where.
func (s *show) started(server *localpg.Server, where string, cfg *config.Config, o devOptions) {
	data := "temporary data"
	if o.data != "" {
		data = "data in " + o.data
	}
	version := fmt.Sprintf("%d.%d", server.Version()/10000, server.Version()%10000)
	s.printf("PostgreSQL %s on 127.0.0.1:%d, %s\n", version, server.Port(), data)
	for _, t := range cfg.Triggers {
		s.printf("Trigger %s on %s, delivered to %s\n", t.Name, t.Table, where)
	}
}

// ready prints what to do next.
func (s *show) ready(server *localpg.Server, o devOptions) {
	s.printf("\nConnect with\n\n  %s '%s'\n\n", psql(server), server.URL(devDatabaseName))
	if o.file == "" {
		s.printf("and write a row, for instance\n\n  insert into orders (customer, amount) values ('Ada', 12.50);\n\n")
	}
	s.printf("%s\n\n", s.page.Paint("Each delivery is shown when it arrives, with the time since its row was written. Ctrl-C stops everything.", term.Dim))
}

// psql returns the command that calls psql: its path if the shell does not find it.
func psql(server *localpg.Server) string {
	if path := lookPath("psql"); path != "" {
		return "psql"
	}
	if path := lookPath(filepath.Join(server.BinDir(), "psql")); path != "" {
		return path
	}
	return "psql"
}

// longestRow is the most bytes of a row that are shown. More would fill the screen.
const longestRow = 1000

// attempt prints an attempt at a configured URL.
func (s *show) attempt(at dispatcher.Attempt) {
	e := &at.Event
	taken := milliseconds(at.Result.StartedAt.Sub(e.CreatedAt))
	outcome := s.page.Paint(fmt.Sprintf("sent after %s, answered %d in %s", taken, at.Result.Status, milliseconds(at.Result.Duration)), term.Green)
	if !at.Result.Delivered() {
		outcome = s.page.Paint(failure(at), term.Red)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page.Printf("%s  %-6s  %s.%s  %s  %s\n", at.Result.StartedAt.Format("15:04:05.000"), e.OpName(), e.Schema, e.Table, e.Trigger, outcome)
	for _, row := range []struct {
		name string
		text []byte
	}{{"old", e.Old}, {"new", e.New}} {
		if len(row.text) > 0 {
			s.page.Printf("  %s %s\n", s.page.Paint(row.name, term.Dim), term.Shorten(string(row.text), longestRow))
		}
	}
}

// failure returns how an attempt failed, and what happens next.
func failure(at dispatcher.Attempt) string {
	what := at.Result.Err
	if at.Result.Kind == webhook.KindResponse {
		what = fmt.Sprintf("answered %d", at.Result.Status)
	}
	next := "no attempts left: it is in rowhook.dead_letter"
	if at.Outcome == dispatcher.Retried {
		next = "again in " + trigger.Duration(at.RetryIn.Round(time.Millisecond)).String()
	}
	return fmt.Sprintf("attempt %d: %s; %s", at.Number, what, next)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}
