package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/cutover"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/sqlschema"
)

// hasuraSecretVariable is the variable that Hasura itself reads.
const hasuraSecretVariable = "HASURA_GRAPHQL_ADMIN_SECRET" //nolint:gosec // its name

func (a *app) cutoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cutover",
		Short: "Move triggers from Hasura to Rowhook, or back, without losing or doubling an event",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.cutoverHasuraCommand())
	return cmd
}

// cutting are the flags of rowhook cutover hasura.
type cutting struct {
	file, url, source                      string
	pending, back, abort, status, dry, yes bool
	timeout, patience                      time.Duration
}

func (a *app) cutoverHasuraCommand() *cobra.Command {
	var c cutting
	cmd := &cobra.Command{
		Use:   "hasura TRIGGER...",
		Short: "Move event triggers of Hasura to Rowhook, or back, while their tables are written to",
		Long: `Move event triggers of Hasura to the triggers of the same name in Rowhook. Each change is delivered by one of the two, and by
one only, while the tables are written to.

The steps: with -f, apply that file; triggers that are new and that Hasura delivers start paused. Put a fence before
hdb_catalog.event_log. In one transaction, which locks the table for a moment, drop Hasura's SQL triggers, close the fence,
and discard what Rowhook has recorded until then, since Hasura has it, too. Wait until Hasura has delivered what it has
recorded. Delete the trigger from Hasura's metadata, by --hasura-url; without it the command says what to do. Resume the
deliveries of Rowhook. Take away the fence.

If Hasura makes its SQL triggers again meanwhile, as it does when its metadata are reloaded, the fence keeps them from
recording, and they are dropped again. A lock is waited for at most --lock-timeout at a time, so that writers pass, for up
to --patience. Each step is recorded in the database: after an interruption, the same command goes on behind it.

The command refuses what it can't do exactly: triggers whose operations or columns differ, with an order, a when, several
tables or a partitioned one, or whose deliveries are not paused. It must run as the owner of the table, with the rights to
use the schema hdb_catalog, and to select from, update and add a trigger to hdb_catalog.event_log.

--with-pending takes over the events that Hasura has not delivered yet, with their ids and attempts, instead of waiting.
What Hasura is sending it still delivers itself.

--back moves them to Hasura, by the same steps. Its event trigger is created by --hasura-url, as it was defined before, or
by hand. --abort ends a cut-over that has not dropped anything yet. --status shows how far each is, and what is left to do.

The admin secret of Hasura is read from HASURA_GRAPHQL_ADMIN_SECRET.`,
		Example: `  rowhook cutover hasura order_placed -f rowhook.yaml --dry-run
  rowhook cutover hasura order_placed -f rowhook.yaml --hasura-url http://hasura:8080
  rowhook cutover hasura order_placed --with-pending
  rowhook cutover hasura --status
  rowhook cutover hasura --back order_placed --hasura-url http://hasura:8080`,
	}
	o := a.operating(cmd)
	s := flagSet{cmd.Flags()}
	s.text(&c.url, "hasura-url", "`URL` of Hasura, such as http://hasura:8080, to change its metadata")
	f := cmd.Flags()
	f.StringVarP(&c.file, "file", "f", "", "apply this configuration `file` first, a directory of such files, or - for standard input")
	f.StringVar(&c.source, "hasura-source", "", "Hasura's `name` of this database, if several of its sources have the trigger")
	f.BoolVar(&c.pending, "with-pending", false, "take over what Hasura has not delivered yet")
	f.BoolVar(&c.back, "back", false, "move them from Rowhook to Hasura")
	f.BoolVar(&c.abort, "abort", false, "end a cut-over that has not dropped anything yet")
	f.BoolVar(&c.status, "status", false, "show how far the cut-overs are, of all triggers if none is named")
	f.BoolVar(&c.dry, "dry-run", false, "print the steps, and do nothing")
	f.DurationVar(&c.timeout, "lock-timeout", cutover.DefaultLockTimeout, "how long to wait for a lock at a time")
	f.DurationVar(&c.patience, "patience", cutover.DefaultPatience, "for how long to try again to get a lock")
	f.BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if err := c.check(names); err != nil {
			return err
		}
		if c.file != "" && a.global.sourcesFile == "" && config.HasSources(c.file) {
			a.global.sourcesFile = c.file
		}
		if c.file != "" && !c.dry {
			if err := a.applyForCutover(cmd.Context(), c, names, o.wait); err != nil {
				return err
			}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			return a.cutOver(ctx, conn, o, c, names)
		})
	}
	return cmd
}

func (c *cutting) check(names []string) error {
	ways := 0
	for _, set := range []bool{c.back, c.abort, c.status} {
		if set {
			ways++
		}
	}
	switch {
	case ways > 1:
		return usagef("--back, --abort and --status exclude each other")
	case len(names) == 0 && !c.status:
		return usagef("name one or more triggers; rowhook cutover hasura --status shows those that are under way")
	case c.file != "" && ways > 0:
		return usagef("-f applies a configuration before triggers are moved to Rowhook: leave it out with --back, --abort and --status")
	case c.pending && ways > 0:
		return usagef("--with-pending takes over events of Hasura: leave it out with --back, --abort and --status")
	case c.timeout <= 0 || c.patience <= 0:
		return usagef("--lock-timeout and --patience must be more than 0")
	case c.file != "" && c.dry:
		return usagef("--dry-run shows the steps for triggers that are applied: run \"rowhook apply --dry-run -f %s\" for the others, or leave out -f", c.file)
	}
	return nil
}

// applyForCutover applies the file. New triggers that Hasura delivers start paused, and those that are to
// be moved record changes again.
func (a *app) applyForCutover(ctx context.Context, c cutting, names []string, wait time.Duration) error {
	g, err := a.givingHere()
	if err != nil {
		return err
	}
	cfg, err := a.loadConfig(c.file, a.lookup, g, false)
	if err != nil {
		return err
	}
	all, err := a.sourcesOf(cfg)
	if err != nil {
		return err
	}
	if all != nil {
		if a, err = a.oneOf(all); err != nil {
			return err
		}
		cfg = cfg.Of(a.source.Name)
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	conn, target, err := a.open(ctx, wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	applier := sqlschema.Applier{Migrator: &a.migrator, Newcomers: cutover.PauseNewcomers, Returning: names}
	plan, err := applier.Plan(ctx, conn, cfg.Triggers, cfg.Settings)
	if err != nil {
		return explainApply(ctx, err, cfg)
	}
	if plan.Empty() {
		return nil
	}
	fmt.Fprintln(a.stderr, plan.String())
	question := fmt.Sprintf("Apply this to the database %q? Triggers that are new and that Hasura delivers start paused.", target.database())
	if err := a.confirm(ctx, c.yes, question); err != nil {
		return err
	}
	if _, err := applier.Apply(ctx, conn, cfg.Triggers, cfg.Settings, a.log); err != nil {
		return explainApply(ctx, err, cfg)
	}
	return nil
}

func (a *app) cutOver(ctx context.Context, conn *pgx.Conn, o *operating, c cutting, names []string) error {
	out := a.stdout
	if o.json {
		out = a.stderr
	}
	run := &cutover.Cutover{Conn: conn, WithPending: c.pending, LockTimeout: c.timeout, Patience: c.patience,
		Say: func(name, text string) { fmt.Fprintf(out, "%s: %s\n", name, term.Clean(text)) }}
	if c.url != "" {
		secret, _ := a.lookup(hasuraSecretVariable)
		run.Metadata = &cutover.Metadata{URL: c.url, Secret: secret, Source: c.source}
	}
	show := func(states []*cutover.State, err error) error {
		if err != nil {
			return err
		}
		if o.json {
			return a.printJSON(map[string]any{"triggers": states})
		}
		return a.showCutovers(states)
	}
	switch {
	case c.status:
		return show(run.Status(ctx, names...))
	case c.abort:
		if !c.dry {
			if err := a.confirm(ctx, c.yes, fmt.Sprintf("End the cut-over of %s? Hasura goes on delivering, and the triggers of Rowhook stay paused.", strings.Join(names, ", "))); err != nil {
				return err
			}
			if err := run.Abort(ctx, names...); err != nil {
				return err
			}
		}
		return show(run.Status(ctx, names...))
	}
	plan, do, question := run.PlanForward, run.Forward, "Move %s from Hasura to Rowhook?"
	if c.back {
		plan, do, question = run.PlanBack, run.Back, "Move %s from Rowhook to Hasura?"
	}
	planned, err := plan(ctx, names...)
	if err != nil {
		return err
	}
	if c.dry && o.json {
		return a.printJSON(map[string]any{"triggers": planned})
	}
	for _, p := range planned {
		fmt.Fprintf(out, "%s (%s):\n", p.Trigger, p.Table)
		for i, step := range p.Steps {
			fmt.Fprintf(out, "  %d. %s\n", i+1, term.Clean(step))
		}
		if len(p.Steps) == 0 {
			fmt.Fprintln(out, "  nothing is left to do")
		}
	}
	if c.dry {
		return nil
	}
	if err := a.confirm(ctx, c.yes, fmt.Sprintf(question, strings.Join(names, ", "))); err != nil {
		return err
	}
	return show(do(ctx, names...))
}

// showCutovers prints how far the cut-overs are.
func (a *app) showCutovers(states []*cutover.State) error {
	if len(states) == 0 {
		a.printf("No cut-over is under way.\n")
		return nil
	}
	page := a.page()
	table := page.Table("TRIGGER", "TABLE", "STEP", "SINCE", "DISCARDED", "TAKEN OVER", "MADE AGAIN")
	now := time.Now()
	for _, s := range states {
		table.Add(term.Text(s.Trigger), term.Text(s.Table), term.Text(string(s.Step)), term.Text(term.Ago(s.Touched, now)),
			term.Number(s.Discarded), term.Number(s.TakenOver), term.Number(s.MadeAgain))
	}
	table.Flush()
	for _, s := range states {
		if s.Remaining != "" {
			page.Printf("%s: %s\n", s.Trigger, term.Clean(s.Remaining))
		}
	}
	return nil
}
