package cli

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// show prints what dev does. It is safe for concurrent use.
type show struct {
	mu   sync.Mutex
	page *term.Page
}

// newShow prints on standard output, unless that is for a program.
func newShow(a *app, o devOptions) *show {
	if len(o.command) > 0 || o.json {
		return &show{page: term.NewPage(a.stderr, a.lookup)}
	}
	return &show{page: a.page()}
}

func (s *show) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page.Printf(format, args...)
}

// started prints what runs where.
func (s *show) started(r *devRun) {
	data := "temporary data"
	if r.data != "" {
		data = "data in " + r.data
	}
	version := fmt.Sprintf("%d.%d", r.server.Version()/10000, r.server.Version()%10000)
	s.printf("PostgreSQL %s on 127.0.0.1:%d, %s\n", version, r.server.Port(), data)
	if r.url != "" {
		s.printf("HTTP interface on %s\n", r.url)
		s.printf("Dashboard on %s\n", r.dashboardURL())
	}
	for _, t := range r.triggers() {
		s.printf("Trigger %s on %s, %s\n", t.Name, t.Table, r.destination(t.Name))
	}
	if n := r.current().alerts; n > 0 {
		s.printf("No alerts are sent: deliveries go to the built-in receiver\n")
	}
}

// signed prints the secrets of the triggers that are forwarded. The app has to verify with them.
func (s *show) signed(r *devRun) {
	if r.forward == nil {
		return
	}
	var given []string
	madeUp := false
	for _, t := range r.triggers() {
		switch {
		case r.target(t.Name) == "" || t.Webhook.Secret == "":
		case r.secretOf(t.Name) == r.secret:
			madeUp = true
		default:
			given = append(given, t.Name)
		}
	}
	if madeUp {
		s.printf("\nVerify signatures with this secret, which was made up, as the configured variable is not set:\n\n  %s\n", r.secret)
	}
	if len(given) > 0 {
		s.printf("\nVerify signatures of %s with the configured secret.\n", strings.Join(given, ", "))
	}
}

// ready prints what to do next.
func (s *show) ready(r *devRun) {
	s.printf("\nConnect with\n\n  %s '%s'\n\n", psql(r.server), r.server.URL(devDatabaseName))
	s.printf("or in another shell, for programs and commands such as rowhook test, with\n\n  export%s\n\n", r.exports())
	if r.file == "" {
		s.printf("and write a row, for instance\n\n  insert into orders (customer, amount) values ('Ada', 12.50);\n\n")
	}
	s.printf("%s\n\n", s.page.Paint("Each delivery is shown when it arrives, with the time since its row was written. Ctrl-C stops everything.", term.Dim))
}

// exports returns the variables as a shell sets them.
func (r *devRun) exports() string {
	text := ""
	set := r.ownVariables()
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if set[name] != "" {
			text += fmt.Sprintf(" %s='%s'", name, set[name])
		}
	}
	return text
}

// forwarded prints what became of a delivery that may be forwarded, and the beginning of the answer.
func (s *show) forwarded(d *sink.Delivery, outcome string, colour term.Colour, answer []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page.Printf("%s  %-6s  %s.%s  %s  attempt %d  %s\n", d.ReceivedAt.Format("15:04:05.000"), d.Op, term.Clean(d.Schema), term.Clean(d.Table),
		d.Trigger, d.CurrentRetry+1, s.page.Paint(term.Clean(outcome), colour))
	if text := strings.TrimSpace(string(answer)); text != "" {
		s.page.Printf("  %s %s\n", s.page.Paint("answer", term.Dim), term.Clean(term.Shorten(text, shownAnswer)))
	}
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
func (s *show) attempt(at dispatcher.Attempt, masked *mask.Mask) {
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
	}{{"old", masked.Apply(e.Old)}, {"new", masked.Apply(e.New)}} {
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
	next := "it is given up: it is in rowhook.dead_letter"
	if at.Outcome == dispatcher.Retried {
		next = "again in " + trigger.Duration(at.RetryIn.Round(time.Millisecond)).String()
	}
	return fmt.Sprintf("attempt %d: %s; %s", at.Number, what, next)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}
