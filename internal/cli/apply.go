package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// defaultFile is the configuration that apply reads unless -f names another.
const defaultFile = "rowhook.yaml"

// applying are the flags of apply.
type applying struct {
	file                   string
	roles                  []string
	wait, tables           time.Duration
	dryRun, exitCode, json bool
	verbose                bool
}

func (a *app) applyCommand() *cobra.Command {
	o := applying{file: defaultFile, wait: defaultConnectTimeout}
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Install the queue and make the triggers as rowhook.yaml says",
		Long: `Install or upgrade the schema rowhook, then make the triggers in the database as rowhook.yaml says.

Missing triggers are created, changed ones are replaced in place, and triggers that are no longer configured are
removed. Events that wait for a removed trigger become dead letters. A second apply changes nothing. Running dispatchers
load the new configuration by themselves. The role needs the right to create in the database. It must own the watched
tables, or have the TRIGGER privilege on them.

A dispatcher can run as another role, which owns nothing and can't write to the watched tables: --grant-to grants that
role exactly the rights that rowhook run needs. Later migrations grant it the rights that a new version needs.

Of a trigger with many tables the changes are counted; -v prints each.

With --dry-run nothing is changed. With --exit-code the command then exits with 3 if there are changes to apply, and with
0 if there are none: for a pipeline that asks for approval, or that looks for a database that has drifted from the file.`,
		Example: `  rowhook apply --dry-run
  rowhook apply --dry-run --exit-code --json
  rowhook apply -f deploy/rowhook.yaml --grant-to rowhook_dispatcher`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.exitCode && !o.dryRun {
				return usagef("--exit-code tells whether changes are pending, and without --dry-run none are at the end: add --dry-run, or leave out --exit-code")
			}
			return a.apply(cmd.Context(), o)
		},
	}
	s := flagSet{cmd.Flags()}
	s.file(&o.file, "configuration `file`, a directory of such files, or - for standard input")
	s.connectTimeout(&o.wait)
	s.waitForTables(&o.tables)
	s.allowPublication(&a.migrator.AllowPublication)
	add(&s, &o.roles, "grant-to", "grant this `role` the rights that rowhook run needs; repeat it, or separate several by commas", listOf(&o.roles))
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "print what would change, and change nothing")
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "with --dry-run: exit with 3 if there are changes to apply")
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "print every change, also of triggers with many tables")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the plan, or what was done, as JSON; its keys stay the same from version to version")
	return cmd
}

// listOf is the syntax of names. A repeated flag adds to them.
func listOf(to *[]string) syntax[[]string] {
	return syntax[[]string]{
		kind: "names",
		parse: func(s string) ([]string, error) {
			all := slices.Clone(*to)
			for name := range strings.SplitSeq(s, ",") {
				if name = strings.TrimSpace(name); name == "" {
					return nil, errors.New("want a name, or several separated by commas")
				}
				all = append(all, name)
			}
			return all, nil
		},
		format: func(all []string) string { return strings.Join(all, ",") },
	}
}

func (s *flagSet) file(to *string, usage string) { s.text(to, "file", usage) }

// allowPublication adds the flag to a command that may install the schema.
func (s *flagSet) allowPublication(to *bool) {
	s.yesNo(to, "allow-publication", "install even if a publication FOR ALL TABLES exists: it publishes Rowhook's tables, too, and subscribers without them stop")
}

const connectTimeoutFlag = "connect-timeout"

func (s *flagSet) connectTimeout(to *time.Duration) {
	s.duration(to, connectTimeoutFlag, "how long to wait for a database that is not reachable yet", 0)
}

func (s *flagSet) waitForTables(to *time.Duration) {
	s.duration(to, "wait-for-tables", "how long to wait for tables and columns of the configuration that do not exist yet, because the application's migrations come later", 0)
}

func (a *app) apply(ctx context.Context, o applying) error {
	g, err := a.givingHere()
	if err != nil {
		return err
	}
	cfg, err := a.loadConfig(o.file, a.lookup, g, false) // a signal ends the program while it reads standard input
	ctx, stop := interruptible(ctx)
	defer stop()
	if err != nil {
		return a.withDatabase(ctx, err)
	}
	all, err := a.sourcesOf(cfg)
	if err != nil {
		return err
	}
	if all == nil {
		return a.applySettled(ctx, cfg, o)
	}
	if err := a.checkConnections(all); err != nil {
		return err
	}
	all, unread, err := a.sourcesNow(ctx, cfg)
	if err != nil {
		return err
	}
	sources, err := a.chosen(all)
	if err != nil {
		return withUnread(err, unread)
	}
	a.distinct = newDistinct()
	return withUnread(a.over(ctx, all, sources, o.json, func(ctx context.Context, a *app) error {
		return a.applySettled(ctx, cfg.Of(a.source.Name), o)
	}), unread)
}

// applySettled applies the configuration to one database, and waits for tables.
func (a *app) applySettled(ctx context.Context, cfg *config.Config, o applying) error {
	keeper := reapplier{tables: o.tables, log: a.log, apply: func(ctx context.Context, cfg *config.Config) error {
		return a.applyOnce(ctx, cfg, o)
	}}
	if err := keeper.settle(ctx, cfg); ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	return errors.New("interrupted while waiting for tables: nothing was changed")
}

// applyOnce applies the configuration, or shows what that would change.
func (a *app) applyOnce(ctx context.Context, cfg *config.Config, o applying) error {
	conn, target, err := a.open(ctx, o.wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	applier := sqlschema.Applier{Migrator: &a.migrator, GrantTo: o.roles}
	if o.dryRun {
		plan, err := applier.Plan(ctx, conn, cfg.Triggers, cfg.Settings)
		if err != nil {
			return explainApply(ctx, err, cfg)
		}
		return a.showPlan(plan, target, cfg, o)
	}
	applier.Planned = func(plan *sqlschema.Plan) error {
		if plan.Empty() || o.json {
			return nil
		}
		changes := *plan
		changes.Warnings = nil // they are logged
		return a.printChanges(&changes, o.verbose)
	}
	plan, err := applier.Apply(ctx, conn, cfg.Triggers, cfg.Settings, a.log)
	if err != nil {
		return explainApply(ctx, err, cfg)
	}
	switch {
	case o.json:
		return a.printJSON(planJSON(plan, cfg, target.database(), false))
	case plan.Empty():
		_, err = fmt.Fprintf(a.stdout, "Nothing to do: the database %q matches %s.\n", target.database(), cfg.File)
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Applied %s to the database %q.\n", cfg.File, target.database())
	return err
}

// withDatabase adds to the errors of a file those that the database finds in its sound parts, so
// that one apply shows all mistakes. If it can't connect, it returns the file's own errors.
func (a *app) withDatabase(ctx context.Context, err error) error {
	var wrong *config.Error
	if !errors.As(err, &wrong) || wrong.Sound() == nil {
		return err
	}
	cfg := wrong.Sound()
	if all, serr := a.sourcesOf(cfg); all != nil || serr != nil || wrong.AboutSources() {
		return err // which of the databases would be asked?
	}
	var specs []trigger.Spec
	var numbers []int
	for i := range cfg.Triggers {
		if cfg.Triggers[i].Watches() != "" {
			specs, numbers = append(specs, cfg.Triggers[i]), append(numbers, i)
		}
	}
	target, terr := a.target()
	if terr != nil || len(specs) == 0 {
		return err
	}
	conn, terr := a.connect(ctx, target, 0)
	if terr != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, terr = sqlschema.MakePlan(ctx, conn, specs, cfg.Settings)
	var found trigger.SpecErrors
	if !errors.As(terr, &found) {
		return err
	}
	for i := range found {
		found[i].Index = numbers[found[i].Index]
	}
	return config.ErrorOf(append(slices.Clone(wrong.Problems), cfg.Explain(found)...)...)
}

// showPlan prints a plan that is not carried out, and chooses the exit code.
func (a *app) showPlan(plan *sqlschema.Plan, t *target, cfg *config.Config, o applying) error {
	var err error
	if o.json {
		err = a.printJSON(planJSON(plan, cfg, t.database(), true))
	} else {
		err = a.printPlan(plan, t, cfg.File, o.verbose)
	}
	if err == nil && o.exitCode && !plan.Empty() {
		return codeError(exitPending)
	}
	return err
}

// printChanges prints each change, and without verbose one line for each kind of the changes of a trigger
// that has many.
func (a *app) printChanges(plan *sqlschema.Plan, verbose bool) error {
	text, shortened := plan.Summary()
	if verbose {
		text, shortened = plan.String(), false
	}
	if shortened {
		text += "\n(-v prints each change)"
	}
	if text == "" {
		return nil
	}
	_, err := fmt.Fprintln(a.stdout, text)
	return err
}

func (a *app) printPlan(plan *sqlschema.Plan, t *target, file string, verbose bool) error {
	if err := a.printChanges(plan, verbose); err != nil {
		return err
	}
	if plan.Empty() {
		_, err := fmt.Fprintf(a.stdout, "Nothing to do: the database %q matches %s.\n", t.database(), file)
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "Nothing was changed in the database %q (--dry-run).\n", t.database())
	return err
}

// applyConfig migrates the schema and reconciles the triggers.
func (a *app) applyConfig(ctx context.Context, conn *pgx.Conn, cfg *config.Config) (*sqlschema.Plan, error) {
	plan, err := sqlschema.Applier{Migrator: &a.migrator}.Apply(ctx, conn, cfg.Triggers, cfg.Settings, a.log)
	if err != nil {
		return nil, explainApply(ctx, err, cfg)
	}
	return plan, nil
}

// loadConfig reads the configuration and logs its warnings. With a nil lookup, variables are not
// checked. runs says that a dispatcher of this program sends for it, and gives out what g says.
func (a *app) loadConfig(file string, lookup func(string) (string, bool), g giving, runs bool) (*config.Config, error) {
	cfg, err := a.loadAny(file, lookup, g, runs)
	if err == nil {
		err = a.refuseNATS(cfg)
	}
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// loadAny is loadConfig of a configuration whose triggers may have destinations that this program can't
// send to.
func (a *app) loadAny(file string, lookup func(string) (string, bool), g giving, runs bool) (*config.Config, error) {
	cfg, err := a.readConfig(file, lookup)
	if err == nil && a.single {
		cfg, err = cfg.Single(a.global.only)
	}
	if err != nil {
		return nil, err
	}
	if err := a.warnOfRefused(cfg, g, runs); err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		a.log.Warn(w.String())
	}
	return cfg, nil
}

// refuseNATS returns an error if triggers publish to NATS, and this program can't. Whoever applies them by
// it would wait for events that no dispatcher of it sends.
func (a *app) refuseNATS(cfg *config.Config) error {
	if a.parts.NATS != nil {
		return nil
	}
	var problems []config.Problem
	for i := range cfg.Triggers {
		if cfg.Triggers[i].Kind() == trigger.KindNATS {
			problems = append(problems, cfg.Problem(i, dispatcher.ErrNoNATS.Error(), "nats"))
		}
	}
	return config.ErrorOf(problems...)
}

// standardInput is the value of -f that means standard input. A file of this name is ./-.
const standardInput = "-"

// readConfig reads the configuration of -f: a file, a directory, or standard input.
func (a *app) readConfig(file string, lookup func(string) (string, bool)) (*config.Config, error) {
	if file == standardInput {
		return config.Read("<stdin>", a.stdin, lookup)
	}
	return config.Load(file, lookup)
}

// explainApply adds the lines of the configuration to errors of the database about tables, columns
// and operators.
func explainApply(ctx context.Context, err error, cfg *config.Config) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: the last step was rolled back")
	}
	var specs trigger.SpecErrors
	if !errors.As(err, &specs) {
		return explain(err)
	}
	explained := config.ErrorOf(cfg.Explain(specs)...)
	if missing := specs.Missing(); missing != nil {
		return &lackError{missing, explained}
	}
	return explained
}
