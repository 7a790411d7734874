// Package cli is Rowhook's command line: its commands, flags and messages.
package cli

import (
	"cmp"
	"context"
	"io"
	"log"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/logs"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/sqlschema"
)

// Run runs one command and returns the exit code: 0 done, 1 failed, 2 wrong usage or configuration,
// 3 changes are pending. environ has the form of [os.Environ]. Libraries read some variables from the process itself: PG*,
// and the proxy settings.
func Run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return RunWith(ctx, Parts{}, args, environ, stdin, stdout, stderr)
}

// Parts are what not every build of the program has.
type Parts struct {
	// NATS makes the destination of triggers with nats. nil: their events are not sent by this program.
	NATS func(dispatcher.DestinationConfig) dispatcher.Destination
	// NATSServer starts the server of rowhook dev --nats, which shows the messages that it gets. nil:
	// this program has none.
	NATSServer func(show func(NATSMessage)) (NATSServer, error)
}

// RunWith is Run of a program that has parts.
func RunWith(ctx context.Context, parts Parts, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{parts: parts, environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	a.log = logs.New(stderr, logs.Options{Format: logs.FormatAuto, Lookup: a.lookup})
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = a.unknown
	}
	if err == nil {
		return a.code
	}
	code := cmp.Or(a.code, a.exitCode(err))
	if !a.started {
		a.guessFormat(args)
	}
	a.report(err)
	return code
}

// app is one run of the program.
type app struct {
	parts          Parts
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer

	log      *slog.Logger
	unknown  error // help was asked for a command that does not exist
	code     int   // the exit code of the command that dev has run
	started  bool  // the command itself runs: its arguments and flags were accepted
	migrator sqlschema.Migrator
	source   *sourced  // the source that this copy works on; nil: there is one database, or it is not chosen yet
	single   bool      // it is rowhook dev, whose one database stands for any source
	distinct *distinct // of the sources that this program works on; nil: they are not compared
	paper    io.Writer // where stdout is shown at last, if that is another writer; nil: stdout itself
	global   struct {
		sourcesFile string // --sources
		only        string // --source
		databaseURL string
		source      string // the flag or variable that gave databaseURL
		listenURL   string
		httpURL     string // the database URL for HTTP; "": there is none of its own
		level       slog.Level
		format      logs.Format
	}
}

// lookup reads a variable of the environment, as os.LookupEnv does.
func (a *app) lookup(name string) (string, bool) {
	for i := len(a.environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(a.environ[i], name+"="); ok {
			return value, true
		}
	}
	return "", false
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "rowhook",
		Short: "Deliver Postgres row changes to webhooks",
		Long: `Rowhook delivers Postgres row changes to webhooks, at least once and within milliseconds.

SQL triggers write each change of a watched table into a queue in the same database, in the writer's own transaction.
NOTIFY wakes the dispatcher. It POSTs due events as JSON, retries failed ones, and keeps those that can't be delivered.

  rowhook dev                      see it work, with a private Postgres and a receiver
  rowhook apply -f rowhook.yaml    install the queue and the triggers
  rowhook run                      deliver events until stopped
  rowhook status                   show the state of triggers, dispatchers and the queue

Where the help of a flag names a variable, such as [$ROWHOOK_POLL_INTERVAL], the variable can be set instead. The flag
has precedence. Exit codes: ` + exitCodes + `.`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\nSee %s --help.", err, cmd.CommandPath())
	})
	root.CompletionOptions.DisableDefaultCmd = true
	a.wrapHelp(root)

	s := flagSet{set: root.PersistentFlags()}
	s.connection(&a.global.databaseURL, "database-url", "Postgres database: a URL or a keyword=value string. If it is not set, the PG* variables (PGHOST, PGUSER, ...) are used. "+
		"The list of processes shows flags, so set the variable if the URL holds a password")
	s.twin("database-url", databaseURLVariable)
	s.connection(&a.global.listenURL, "listen-url", "URL for LISTEN, if the database URL leads through a pooler such as PgBouncer in transaction mode: a direct connection to the same database")
	a.sourceFlags(&s)
	a.global.level = slog.LevelInfo
	add(&s, &a.global.level, "log-level", "the lowest level to log", oneOf(map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}, "debug", "info", "warn", "error"))
	a.global.format = logs.FormatAuto
	add(&s, &a.global.format, "log-format", "format of the log on standard error; auto uses colours on a terminal, unless NO_COLOR is set", oneOf(map[string]logs.Format{
		"auto": logs.FormatAuto, "text": logs.FormatText, "json": logs.FormatJSON,
	}, "auto", "text", "json"))

	root.AddGroup(&cobra.Group{ID: "work", Title: "Commands:"}, &cobra.Group{ID: "operate", Title: "Commands for operators:"},
		&cobra.Group{ID: "other", Title: "Other commands:"})
	for _, cmd := range []*cobra.Command{a.devCommand(), a.initCommand(), a.importCommand(), a.checkCommand(), a.applyCommand(), a.runCommand(), a.sinkCommand(), a.uninstallCommand()} {
		cmd.GroupID = "work"
		root.AddCommand(cmd)
	}
	for _, cmd := range []*cobra.Command{
		a.statusCommand(), a.doctorCommand(), a.triggersCommand(), a.eventsCommand(), a.redeliverCommand(), a.retryCommand(), a.cancelCommand(), a.discardCommand(), a.eraseCommand(), a.invokeCommand(), a.testCommand(),
		a.pauseCommand(), a.resumeCommand(), a.backfillCommand(), a.replayCommand(), a.drainCommand(), a.cutoverCommand(), a.auditCommand(), a.exportCommand(), a.tokenCommand(),
	} {
		cmd.GroupID = "operate"
		root.AddCommand(cmd)
	}
	for _, cmd := range []*cobra.Command{a.migrateCommand(), a.stripCommand(), a.healthcheckCommand(), a.versionCommand(), a.completionCommand()} {
		cmd.GroupID = "other"
		root.AddCommand(cmd)
	}
	root.SetHelpCommandGroupID("other")
	explainArguments(root)
	a.explainHelp(root)
	a.offerVersion(root)
	return root
}

// prepare reads the environment and sets up the log. It runs before every command.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if err := fromEnvironment(cmd.Flags(), a.lookup); err != nil {
		return &usageError{err}
	}
	if err := a.checkSourceFlags(cmd.Flags().Changed); err != nil {
		return err
	}
	switch {
	case cmd.Flags().Changed("database-url"):
		a.global.source = databaseURLFlag
	case strings.HasPrefix(a.global.databaseURL, session.FilePrefix+"/"):
		a.global.source = "the file of " + databaseURLVariable + fileSuffix
	case a.global.databaseURL != "":
		a.global.source = databaseURLVariable
	default:
		a.global.source = databaseURLVariable + " (not set, so the PG* variables and their defaults are used)"
	}
	a.log = a.logger(a.global.level)
	log.SetFlags(0)                      //nolint:forbidigo // as the next
	log.SetOutput(logs.Libraries(a.log)) //nolint:forbidigo // the log of libraries goes to ours
	a.warnOfMisspelled(cmd.Root())
	a.started = true
	return nil
}

func (a *app) logger(level slog.Level) *slog.Logger {
	return logs.New(a.stderr, logs.Options{Level: level, Format: a.global.format, Lookup: a.lookup})
}
