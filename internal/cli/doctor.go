package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/doctor"
	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

// examining are the flags of doctor.
type examining struct {
	file    string
	timeout time.Duration
	polls   bool
	json    bool
}

func (a *app) doctorCommand() *cobra.Command {
	o := examining{timeout: 10 * time.Second}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out whether the database at hand suits Rowhook, and what to set",
		Long: `Find out whether the database at hand suits Rowhook, and what to set: before the first apply, and when something does
not work. It says of each check whether it is ok, a warning or a failure, with a remedy:

  - the connection, TLS, the round trip, the version, whether the database can be written to, whose service it is
  - the clocks; a pooler in the way; whether a real notification arrives, and how soon; the queue of notifications
  - the schema and its warnings, the role's rights, the triggers and tables of -f, or of what is applied
  - who else captures those tables: Hasura, Supabase, triggers that send or notify, publications
  - settings, free connections, extensions, publications, replication slots, what holds back vacuum, sizes

It changes nothing in the database: it reads, sends notifications on a channel of its own, and with -f makes the plan of
"rowhook apply --dry-run". Each check ends within --timeout. Exit 0 if nothing fails, 1 if something does.`,
		Example: `  rowhook doctor
  rowhook doctor -f rowhook.yaml
  rowhook doctor --json | jq -r '.checks[] | select(.state != "ok") | .detail'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), o) },
	}
	s := flagSet{cmd.Flags()}
	s.file(&o.file, "look at the triggers and tables of this configuration `file`, too, or of a directory of such files, or - for standard input")
	s.duration(&o.timeout, "timeout", "how long a check may take", 100*time.Millisecond)
	s.yesNo(&o.polls, "no-listen", "the dispatchers run with --no-listen, so do not try to LISTEN")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON; its keys stay the same from version to version")
	return cmd
}

// doctor examines the database, or those of sources, and prints what was found.
func (a *app) doctor(ctx context.Context, o examining) error {
	var cfg *config.Config
	if o.file != "" {
		var err error
		if cfg, err = a.readConfig(o.file, nil); err != nil {
			return err
		}
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	all, unread, err := a.sourcesNow(ctx, cfg)
	if err != nil {
		return err
	}
	if all == nil {
		return a.examine(ctx, o, cfg)
	}
	sources, err := a.chosen(all)
	if err != nil {
		return withUnread(err, unread)
	}
	return withUnread(a.over(ctx, all, sources, o.json, func(ctx context.Context, a *app) error {
		if cfg == nil {
			return a.examine(ctx, o, nil)
		}
		return a.examine(ctx, o, cfg.Of(a.source.Name))
	}), unread)
}

// examine examines one database.
func (a *app) examine(ctx context.Context, o examining, cfg *config.Config) error {
	d := doctor.Doctor{Polls: o.polls, Timeout: o.timeout, Diagnose: func(err error, source string) (problem, remedy string) {
		what, _ := diagnoseConnect(err)
		return what.problem, what.remedyFor(source)
	}}
	t, err := a.databaseTarget()
	if err != nil {
		return err
	}
	d.Database = doctor.Endpoint{Config: t.config, Source: t.source, Where: t.String()}
	if a.global.listenURL != "" {
		t, err := parseTarget(a.global.listenURL, a.listenOrigin())
		if err != nil {
			return err
		}
		d.Listen = &doctor.Endpoint{Config: t.config, Source: t.source, Where: t.String()}
	}
	if cfg != nil {
		d.HasFile, d.Triggers, d.Settings = true, cfg.Triggers, cfg.Settings
		d.Explain = func(faults trigger.SpecErrors) []string { return linesOf(cfg.Explain(faults)) }
	}
	report := d.Examine(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	for i := range report.Findings {
		report.Findings[i].Remedy = hint.Of(a.sourceName(), report.Findings[i].Remedy)
	}
	if o.json {
		err = a.printJSON(report)
	} else {
		showReport(a.page(), report)
	}
	if err == nil && !report.OK {
		return codeError(exitFailed)
	}
	return err
}

func linesOf(problems []config.Problem) []string {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.String()
	}
	return lines
}

// showReport prints a line for each finding, and how many there are of each state.
func showReport(page *term.Page, r *doctor.Report) {
	for _, f := range r.Findings {
		line := f.Detail
		if f.Remedy != "" {
			line += ": " + f.Remedy
		}
		page.Paragraph(term.Cell{Text: pad(string(f.State), 6) + pad(f.Check, 14), Colour: colourOf(f.State)}, term.Text(line))
	}
	fails, warns := int64(r.Count(doctor.Fail)), int64(r.Count(doctor.Warn))
	switch {
	case fails > 0:
		page.Printf("\n%s to see to before Rowhook works here, and %s.\n", term.Plural(fails, "failure"), term.Plural(warns, "warning"))
	case warns > 0:
		page.Printf("\nRowhook works here, with %s.\n", term.Plural(warns, "warning"))
	default:
		page.Printf("\nRowhook works here.\n")
	}
}

func pad(s string, columns int) string {
	for len(s) < columns {
		s += " "
	}
	return s
}

func colourOf(s doctor.State) term.Colour {
	switch s {
	case doctor.Fail:
		return term.Red
	case doctor.Warn:
		return term.Yellow
	}
	return term.Plain
}
