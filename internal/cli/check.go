package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/logs"
	"github.com/rowhook/rowhook/internal/term"
)

// checking are the flags of check.
type checking struct {
	file              string
	strict, env, json bool
}

func (a *app) checkCommand() *cobra.Command {
	o := checking{file: defaultFile}
	cmd := &cobra.Command{
		Use:   "check [FILE]...",
		Short: "Tell whether a configuration is valid, without a database",
		Long: `Tell whether a configuration is valid, without a database: for pre-commit, for CI, and before an apply.

Each FILE is a configuration of its own: a file, a directory of files, or - for standard input. Without one it is that of
-f. Every problem is printed with its file, line and remedy. Whether tables and columns exist, and whether Postgres
accepts each when, only "rowhook apply --dry-run" can tell.

Warnings, such as a secret in plain text, do not make a configuration wrong unless --strict is given. Variables that the
configuration refers to are not looked up, because they are set where the dispatcher runs; --env looks them up here. A
name that dispatchers do not give out is warned of, as ROWHOOK_ENV and ROWHOOK_SECRETS_DIR say here. Exit 0 if every
configuration is valid, 2 if not.`,
		Example: `  rowhook check
  rowhook check -f deploy/rowhook.d --strict
  rowhook check --json services/*/rowhook.yaml
  helm template . --show-only templates/rowhook.yaml | rowhook check -`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.Flags().Changed("file") {
				return usagef("the files are given both as arguments and by -f: leave one of them out")
			}
			if len(args) == 0 {
				args = []string{o.file}
			}
			if first := slices.Index(args, standardInput); first >= 0 && slices.Contains(args[first+1:], standardInput) {
				return usagef("- is given twice, but standard input can be read once: leave one of them out")
			}
			return a.check(args, o)
		},
	}
	s := flagSet{cmd.Flags()}
	s.file(&o.file, "configuration `file`, a directory of such files, or - for standard input")
	cmd.Flags().BoolVar(&o.strict, "strict", false, "a warning makes a configuration wrong, too")
	cmd.Flags().BoolVar(&o.env, "env", false, "warn of variables that are not set here, and of values that make no URL or no secret")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON; its keys stay the same from version to version")
	return cmd
}

// checked is the JSON of check. Its keys are a promise; docs/configuration.md describes them.
type checked struct {
	OK       bool             `json:"ok"`
	Files    []string         `json:"files"`
	Sources  []checkedSource  `json:"sources,omitempty"`
	Triggers []checkedTrigger `json:"triggers"`
	Alerts   []checkedAlert   `json:"alerts"`
	Problems []finding        `json:"problems"`
	Warnings []finding        `json:"warnings"`
}

// checkedSource is an entry of sources in a valid configuration.
type checkedSource struct {
	Name      string   `json:"name"`
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Column    int      `json:"column"`
	Variables []string `json:"variables"` // that its connection strings are made of
	// SecretFiles are the paths of references to files.
	SecretFiles []string `json:"secret_files"`
}

// checkedAlert is an entry of alerts in a valid configuration.
type checkedAlert struct {
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Column    int      `json:"column"`
	Variables []string `json:"variables"`
	// SecretFiles are the paths of references to files.
	SecretFiles []string `json:"secret_files"`
}

// checkedTrigger is a trigger of a valid configuration.
type checkedTrigger struct {
	Name      string   `json:"name"`
	Table     string   `json:"table"`
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Column    int      `json:"column"`
	Variables []string `json:"variables"`
	// SecretFiles are the paths of references to files.
	SecretFiles []string `json:"secret_files"`
	// Sources are the names of those that it is for. Absent: there are none.
	Sources []string `json:"sources,omitempty"`
}

// finding is a problem or a warning. Line and Column are 0 for a file as a whole, and Key is "".
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Key     string `json:"key"`
	Message string `json:"message"`
}

func findings(problems []config.Problem) []finding {
	found := make([]finding, len(problems))
	for i, p := range problems {
		found[i] = finding{File: p.File, Line: p.Line, Column: p.Column, Key: p.Key, Message: p.Message}
	}
	return found
}

// check checks each configuration by itself, and says all that it finds.
func (a *app) check(paths []string, o checking) error {
	lookup := a.lookup
	if !o.env {
		lookup = nil
	}
	g, err := a.givingHere()
	if err != nil {
		return err
	}
	all := checked{OK: true, Files: []string{}, Triggers: []checkedTrigger{}, Alerts: []checkedAlert{}, Problems: []finding{}, Warnings: []finding{}}
	for _, path := range paths {
		cfg, err := a.readConfig(path, lookup)
		if err == nil {
			err = a.refuseNATS(cfg)
		}
		if err == nil {
			cfg.WarnOfRules()
			err = a.warnOfRefused(cfg, g, false)
		}
		if err != nil {
			all.OK = false
			wrong, known := errors.AsType[*config.Error](err)
			if !known {
				return err
			}
			all.addProblems(wrong)
			if !o.json {
				a.say(slog.LevelError, err.Error())
			}
			continue
		}
		all.OK = all.OK && (!o.strict || len(cfg.Warnings) == 0)
		all.add(cfg)
		if !o.json {
			a.showChecked(cfg, o)
		}
	}
	if o.json {
		if err := a.printJSON(all); err != nil {
			return err
		}
	}
	if !all.OK {
		return codeError(exitUsage)
	}
	return nil
}

func (all *checked) addProblems(wrong *config.Error) {
	all.Problems = append(all.Problems, findings(wrong.Problems)...)
	if sound := wrong.Sound(); sound != nil {
		all.Files = append(all.Files, sound.Files...)
		return
	}
	for _, p := range wrong.Problems { // files that can't be read
		if !slices.Contains(all.Files, p.File) {
			all.Files = append(all.Files, p.File)
		}
	}
}

func (all *checked) add(cfg *config.Config) {
	all.Files = append(all.Files, cfg.Files...)
	all.Warnings = append(all.Warnings, findings(cfg.Warnings)...)
	for i := range cfg.Triggers {
		at := cfg.Position(i)
		variables, files := config.References(cfg.Triggers[i])
		all.Triggers = append(all.Triggers, checkedTrigger{
			Name: cfg.Triggers[i].Name, Table: cfg.Triggers[i].Watches(), File: at.File, Line: at.Line, Column: at.Column, Variables: variables, SecretFiles: files,
			Sources: cfg.SourcesOf(i),
		})
	}
	for i := range cfg.Sources {
		s := &cfg.Sources[i]
		at := cfg.Position(-1, "sources", s.Name)
		variables, files := s.References()
		all.Sources = append(all.Sources, checkedSource{s.Name, at.File, at.Line, at.Column, variables, files})
	}
	for i := range cfg.Settings.Alerts {
		at := cfg.Position(-1, "alerts", strconv.Itoa(i))
		variables, files := config.AlertReferences(cfg.Settings.Alerts[i])
		all.Alerts = append(all.Alerts, checkedAlert{at.File, at.Line, at.Column, variables, files})
	}
}

// showChecked says what a valid configuration has, and its warnings.
func (a *app) showChecked(cfg *config.Config, o checking) {
	for _, w := range cfg.Warnings {
		a.say(slog.LevelWarn, w.Labelled("warning"))
	}
	line := cfg.File + ": " + term.Plural(int64(len(cfg.Triggers)), "trigger")
	if len(cfg.Sources) > 0 {
		line += " for " + term.Plural(int64(len(cfg.Sources)), "source")
		if cfg.Tenants != nil {
			line += " and its tenants"
		}
	}
	if len(cfg.Files) > 1 {
		line += " in " + term.Plural(int64(len(cfg.Files)), "file")
	}
	warnings := term.Plural(int64(len(cfg.Warnings)), "warning")
	if len(cfg.Warnings) > 0 && o.strict {
		a.say(slog.LevelError, line+", and "+warnings+" (--strict)")
		return
	}
	line += ", no problem"
	if len(cfg.Warnings) > 0 {
		line += ", " + warnings
	}
	if len(cfg.Ignored) > 0 {
		line += " (ignored: " + term.Clean(config.Names(cfg.Ignored)) + ")"
	}
	fmt.Fprintln(a.stdout, line)
}

// say writes what a command found to standard error, or to the log if that is JSON.
func (a *app) say(level slog.Level, text string) {
	if a.global.format == logs.FormatJSON {
		a.log.Log(context.Background(), level, text)
		return
	}
	fmt.Fprintln(a.stderr, text)
}
