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

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// defaultFile is the configuration that apply reads where none is named.
const defaultFile = "rowhook.yaml"

func (a *app) applyCommand() *cobra.Command {
	file, dryRun, wait := defaultFile, false, defaultConnectTimeout
	var roles []string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Install the queue and make the triggers as rowhook.yaml says",
		Long: `Install or upgrade the schema rowhook, then make the database's triggers what rowhook.yaml says.

What is missing is created, what changed is replaced in place, and what is no longer configured is removed; events that
wait for a removed trigger go to the dead letters. Applying twice changes nothing. Dispatchers that run notice by
themselves. The role needs the right to create in the database, and to own the watched tables or have the TRIGGER
privilege on them.

A dispatcher can run as another role, which owns nothing and can't write to the watched tables: --grant-to gives that
role exactly what rowhook run needs. Migrations of the schema give it what a new version needs.`,
		Example: `  rowhook apply --dry-run
  rowhook apply -f deploy/rowhook.yaml --grant-to rowhook_dispatcher`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.apply(ctx, file, roles, dryRun, wait)
		},
	}
	s := flagSet{cmd.Flags()}
	s.file(&file, "configuration `file`")
	s.connectTimeout(&wait)
	s.allowPublication(&a.migrator.AllowPublication)
	add(&s, &roles, "grant-to", "`role` to give the rights that rowhook run needs; can be repeated, or several separated by commas", listOf(&roles))
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would change, and change nothing")
	return cmd
}

// listOf is the syntax of names that add up where the flag is repeated.
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

// allowPublication belongs to every command that may install the schema.
func (s *flagSet) allowPublication(to *bool) {
	s.yesNo(to, "allow-publication", "install also where a publication for all tables would publish Rowhook's own, which stops subscribers that do not have them")
}

func (s *flagSet) connectTimeout(to *time.Duration) {
	s.duration(to, "connect-timeout", "how long to wait for a database that can't be reached yet", 0)
}

func (a *app) apply(ctx context.Context, file string, roles []string, dryRun bool, wait time.Duration) error {
	cfg, err := a.loadConfig(file, a.lookup)
	if err != nil {
		return a.withDatabase(ctx, err)
	}
	target, err := a.target()
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx, target, wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	applier := sqlschema.Applier{Migrator: &a.migrator, GrantTo: roles}
	if dryRun {
		plan, err := applier.Plan(ctx, conn, cfg.Triggers, cfg.Settings)
		if err != nil {
			return explainApply(ctx, err, cfg)
		}
		return a.printPlan(plan, target, file)
	}
	applier.Planned = func(plan *sqlschema.Plan) error {
		if plan.Empty() {
			return nil
		}
		changes := *plan
		changes.Warnings = nil // the log has them
		_, err := fmt.Fprintln(a.stdout, changes.String())
		return err
	}
	plan, err := applier.Apply(ctx, conn, cfg.Triggers, cfg.Settings, a.log)
	if err != nil {
		return explainApply(ctx, err, cfg)
	}
	if plan.Empty() {
		_, err = fmt.Fprintf(a.stdout, "Nothing to do: the database %q is as %s says.\n", target.database(), file)
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Applied %s to the database %q.\n", file, target.database())
	return err
}

// withDatabase adds to what is wrong with a file what the database finds wrong with the rest of it, so that nobody has to apply again to hear of the
// next mistake. Where the database can't be asked now, the file's own errors are enough.
func (a *app) withDatabase(ctx context.Context, err error) error {
	var wrong *config.Error
	if !errors.As(err, &wrong) || wrong.Sound() == nil {
		return err
	}
	cfg := wrong.Sound()
	var specs []trigger.Spec
	var numbers []int
	for i := range cfg.Triggers {
		if cfg.Triggers[i].Table != "" {
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
	problems := slices.Clone(wrong.Problems)
	for _, e := range found {
		problems = append(problems, cfg.Problem(numbers[e.Index], e.Message, e.Path...))
	}
	return config.ErrorOf(problems...)
}

func (a *app) printPlan(plan *sqlschema.Plan, t *target, file string) error {
	if text := plan.String(); text != "" {
		fmt.Fprintln(a.stdout, text)
	}
	if plan.Empty() {
		_, err := fmt.Fprintf(a.stdout, "Nothing to do: the database %q is as %s says.\n", t.database(), file)
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

// loadConfig reads the configuration and logs what is probably wrong in it. A nil lookup says nothing of the environment.
func (a *app) loadConfig(file string, lookup func(string) (string, bool)) (*config.Config, error) {
	cfg, err := config.Load(file, lookup)
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		a.log.Warn(w.String())
	}
	return cfg, nil
}

// explainApply points to the lines of the configuration that the database has no table, column or operator for.
func explainApply(ctx context.Context, err error, cfg *config.Config) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: nothing of the last step was kept")
	}
	var specs trigger.SpecErrors
	if !errors.As(err, &specs) {
		return explain(err)
	}
	problems := make([]config.Problem, len(specs))
	for i, e := range specs {
		problems[i] = cfg.Problem(e.Index, e.Message, e.Path...)
	}
	return config.ErrorOf(problems...)
}
