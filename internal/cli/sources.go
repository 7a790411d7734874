package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

// The flags that say which databases commands work on.
const (
	sourcesFlag = "sources"
	sourceFlag  = "source"
)

// databaseURLFlag is what gave the database URL, if the command line did.
const databaseURLFlag = "--database-url"

// sourceFlags adds the flags for several databases.
func (a *app) sourceFlags(s *flagSet) {
	s.text(&a.global.sourcesFile, sourcesFlag, "configuration `file`, or directory of such files, whose sources are the databases to work on, instead of the database URL; apply, run and check read those of -f")
	s.text(&a.global.only, sourceFlag, "work on the source of this `name` alone")
}

// checkSourceFlags lets a database URL on the command line take the place of sources from variables.
func (a *app) checkSourceFlags(changed func(flag string) bool) error {
	if !changed("database-url") {
		return nil
	}
	for _, flag := range []string{sourcesFlag, sourceFlag} {
		if changed(flag) {
			return usagef("--database-url names one database, and --%s says which of several: leave one of them out", flag)
		}
	}
	a.global.sourcesFile, a.global.only = "", ""
	return nil
}

// sourced is the source that a copy of the program works on.
type sourced struct {
	config.Source
	all *config.Config // the configuration that has it
}

// sourcesOf returns the configuration with the sources to work on: cfg if it has some, or that of
// --sources. nil: there is one database. cfg may be nil.
func (a *app) sourcesOf(cfg *config.Config) (*config.Config, error) {
	var err error
	if a.single {
		return nil, nil
	}
	if cfg == nil || cfg.Sources == nil {
		cfg = nil
		if a.global.sourcesFile != "" {
			cfg, err = config.LoadSources(a.global.sourcesFile)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case cfg == nil && a.global.only != "":
		return nil, usagef("--source or ROWHOOK_SOURCE names the source %q, and no sources are known: name the configuration that has them by --sources or ROWHOOK_SOURCES", a.global.only)
	case cfg == nil:
		return nil, nil
	case a.global.source == databaseURLFlag:
		return nil, usagef("%s names one database, and %s has sources: leave it out, or apply a file without sources", databaseURLFlag, cfg.File)
	case a.global.listenURL != "":
		return nil, usagef("--listen-url or ROWHOOK_LISTEN_URL is of one database, and %s has sources: write listen_url in each of them", cfg.File)
	}
	return cfg, nil
}

// hasSources reports whether the configuration of -f has sources, or --sources names some. What is wrong
// with them is said later.
func (a *app) hasSources(file string) (bool, error) {
	if file != "" && config.HasSources(file) {
		return true, nil
	}
	all, err := a.sourcesOf(nil)
	return all != nil, err
}

// chosen returns the sources to work on: that of --source, or all.
func (a *app) chosen(all *config.Config) ([]config.Source, error) {
	if a.global.only == "" {
		return all.Sources, nil
	}
	for _, s := range all.Sources {
		if s.Name == a.global.only {
			return []config.Source{s}, nil
		}
	}
	names := config.SourceNames(all.Sources)
	return nil, usagef("%s has no source %q%s; the sources are %s", all.File, a.global.only, suggest.Hint(a.global.only, names), config.Names(names))
}

// one returns the program for the one database that a command works on.
func (a *app) one() (*app, error) {
	if a.source != nil {
		return a, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*tenantsTimeout)
	defer cancel()
	all, unread, err := a.sourcesNow(ctx, nil)
	if err != nil || all == nil {
		return a, err
	}
	if unread != nil {
		a.log.Warn("not all tenants are known", "error", unread)
	}
	return a.oneOf(all)
}

// oneOf is one, of these sources.
func (a *app) oneOf(all *config.Config) (*app, error) {
	chosen, err := a.chosen(all)
	if err != nil {
		return nil, err
	}
	if len(chosen) > 1 || all.Tenants != nil && a.global.only == "" {
		return nil, usagef("this works on one database, and %s has several sources: add --source and one of %s", all.File, config.Names(config.SourceNames(chosen)))
	}
	return a.at(all, chosen[0])
}

// at returns the program for a source. It expands the references of its connection strings.
func (a *app) at(all *config.Config, s config.Source) (*app, error) {
	b := *a
	b.source, b.log = &sourced{s, all}, a.log.With("source", s.Name)
	for _, c := range []struct {
		key, text string
		to        *string
	}{{"url", s.URL, &b.global.databaseURL}, {"listen_url", s.ListenURL, &b.global.listenURL}, {"http_url", s.HTTPURL, &b.global.httpURL}} {
		text, err := a.connectionText(c.text)
		if err == nil && s.Host != "" && c.key == "url" {
			text, err = a.tenantText(s)
		}
		if err != nil {
			if s.Host != "" {
				return nil, config.ErrorOf(all.SourceProblem("from", err.Error(), c.key))
			}
			return nil, config.ErrorOf(all.SourceProblem(s.Name, err.Error(), c.key))
		}
		*c.to = text
	}
	b.global.source = originOf(s.Name)
	return &b, nil
}

// sourceName is the name of the source that this program works on; "": there is one database.
func (a *app) sourceName() string {
	if a.source == nil {
		return ""
	}
	return a.source.Name
}

// advise prints a text whose commands name the source.
func (a *app) advise(w io.Writer, format string, args ...any) {
	fmt.Fprint(w, hint.Of(a.sourceName(), fmt.Sprintf(format, args...)))
}

// advisedError is an error whose commands name the source.
type advisedError struct {
	error
	source string
}

func (e *advisedError) Error() string { return hint.Of(e.source, e.error.Error()) }

func (e *advisedError) Unwrap() error { return e.error }

// advised has the commands of an error name a source. Errors of usage stay: all sources have the same.
func advised(source string, err error) error {
	if source == "" || !failed(err) || errors.As(err, new(*usageError)) {
		return err
	}
	return &advisedError{err, source}
}

// originOf names the key that has the database URL of a source.
func originOf(source string) string { return "url of the source " + source }

// connectionText expands the references of a connection string. A text that is a reference to a file
// alone stands for that file, which is then read for each connection.
func (a *app) connectionText(raw string) (string, error) {
	if path, ok := strings.CutPrefix(raw, "${"+trigger.FilePrefix); ok && strings.Index(path, "}") == len(path)-1 {
		return session.FilePrefix + path[:len(path)-1], nil
	}
	return trigger.Expand(raw, a.ownValue)
}

// ownValue gives out what connection strings refer to.
func (a *app) ownValue(name string) (string, error) {
	if path, isFile := strings.CutPrefix(name, trigger.FilePrefix); isFile {
		return secret.Read(path)
	}
	if value, _ := a.lookup(name); value != "" {
		return value, nil
	}
	return "", &trigger.UnsetError{Name: name}
}

// checkConnections returns a problem for each connection string that names a variable that is not set,
// which can't be set later, and for each that names the database of another source.
func (a *app) checkConnections(all *config.Config) error {
	var problems []config.Problem
	all.EachConnection(func(raw string, path ...string) {
		names, _ := trigger.References(raw)
		for _, name := range names {
			if value, _ := a.lookup(name); value == "" && !strings.HasPrefix(name, trigger.FilePrefix) {
				problems = append(problems, all.Problem(-1, (&trigger.UnsetError{Name: name}).Error()+"; set it where this program runs", path...))
			}
		}
	})
	if len(problems) == 0 {
		problems = a.sameDatabases(all)
	}
	return config.ErrorOf(problems...)
}

// sameDatabases returns a problem for each source that is the database of an earlier one. A pooler may
// tell databases by the user or by options, so these have to be the same, too.
func (a *app) sameDatabases(all *config.Config) (problems []config.Problem) {
	type place struct {
		host                    string
		port                    uint16
		user, database, options string
	}
	owners := map[place]string{}
	for _, s := range all.Sources {
		b, err := a.at(all, s)
		if err != nil { // such as a file that comes later
			continue
		}
		t, err := b.databaseTarget()
		if err != nil {
			continue
		}
		here := place{t.config.Host, t.config.Port, t.config.User, t.database(), t.config.RuntimeParams["options"]}
		if owner, ok := owners[here]; ok {
			problems = append(problems, all.SourceProblem(s.Name, config.SameDatabase(owner), "url"))
			continue
		}
		owners[here] = s.Name
	}
	return problems
}

// rules are what a source gives out to its triggers: what the file says of it, or else what the flags
// say, or else nothing, since the owner of its database may refer to it.
func (s *sourced) rules(g giving) secret.Rules {
	r := secret.Rules{Env: s.Env, Dirs: g.dirs, Source: s.Name}
	if r.Env == nil {
		r.Env = g.env
	}
	if r.Env == nil {
		r.Env = []string{}
	}
	if s.SecretsDir != "" {
		r.Dirs = []string{s.SecretsDir}
	}
	r.Never, _ = s.all.OwnReferences()
	return r
}

// atOnce is how many sources a command works on at a time.
const atOnce = 8

// outcome is what a command said of a source.
type outcome struct {
	out    bytes.Buffer
	err    error
	absent bool // what is asked for is not there, but with another source
}

// over has do work on each source, several at a time, and prints what it prints under the name of the
// source, in their order. Its error names the sources that failed.
func (a *app) over(ctx context.Context, all *config.Config, sources []config.Source, asJSON bool, do func(context.Context, *app) error) error {
	if a.global.only != "" {
		b, err := a.at(all, sources[0])
		if err != nil {
			return err
		}
		return advised(sources[0].Name, do(ctx, b))
	}
	outcomes := make([]outcome, len(sources))
	var working sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, s := range sources {
		slots <- struct{}{}
		working.Go(func() {
			defer func() { <-slots }()
			o := &outcomes[i]
			var b *app
			if b, o.err = a.at(all, s); o.err == nil {
				b.paper, b.stdout = a.shownOn(), &o.out
				o.err = advised(s.Name, do(ctx, b))
			}
		})
	}
	working.Wait()
	forgive(outcomes)
	if err := sameUsage(outcomes); err != nil {
		return err
	}
	if err := a.showOutcomes(sources, outcomes, asJSON); err != nil {
		return err
	}
	return a.verdict(sources, outcomes)
}

// sameUsage returns the error of wrong usage that all sources have, as a wrong argument is.
func sameUsage(outcomes []outcome) error {
	if len(outcomes) == 0 {
		return nil
	}
	for i := range outcomes {
		err := outcomes[i].err
		if err == nil || !errors.As(err, new(*usageError)) || err.Error() != outcomes[0].err.Error() {
			return nil
		}
	}
	return outcomes[0].err
}

// forgive takes back that something was not found in some sources, if it was in another one.
func forgive(outcomes []outcome) {
	if !slices.ContainsFunc(outcomes, func(o outcome) bool { return o.err == nil }) {
		return
	}
	for i := range outcomes {
		if o := &outcomes[i]; errors.Is(o.err, operate.ErrNotFound) {
			o.err, o.absent = nil, true
		}
	}
}

func (a *app) showOutcomes(sources []config.Source, outcomes []outcome, asJSON bool) error {
	if asJSON {
		all := []json.RawMessage{}
		for i := range outcomes {
			if outcomes[i].absent {
				continue
			}
			document, err := named(sources[i].Name, &outcomes[i])
			if err != nil {
				return err
			}
			all = append(all, document)
		}
		return a.printJSON(map[string]any{"sources": all})
	}
	page, first := a.page(), true
	for i := range outcomes {
		o := &outcomes[i]
		if o.absent {
			continue
		}
		if !first {
			page.Printf("\n")
		}
		first = false
		page.Printf("%s\n", page.Paint(sources[i].Name, term.Bold))
		if _, err := a.stdout.Write(o.out.Bytes()); err != nil {
			return err
		}
		if failed(o.err) {
			page.Printf("%s\n", page.Paint(o.err.Error(), term.Red))
		}
	}
	return nil
}

// failed reports whether an error has to be said, and not only an exit code.
func failed(err error) bool { return err != nil && !errors.As(err, new(codeError)) }

// named returns a document of a command with the name of its source, and why it failed.
func named(source string, o *outcome) (json.RawMessage, error) {
	name, err := json.Marshal(source)
	if err != nil {
		return nil, err
	}
	out := append([]byte(`{"source":`), name...)
	if failed(o.err) {
		text, err := json.Marshal(o.err.Error())
		if err != nil {
			return nil, err
		}
		out = append(append(out, `,"error":`...), text...)
	}
	if rest := bytes.TrimSpace(o.out.Bytes()); len(rest) > 2 && rest[0] == '{' {
		return append(append(out, ','), rest[1:]...), nil
	}
	return append(out, '}'), nil
}

// verdict returns the exit code of what was done to several sources, and names those that failed.
func (a *app) verdict(sources []config.Source, outcomes []outcome) error {
	var bad []string
	code := exitDone
	for i := range outcomes {
		err := outcomes[i].err
		var own codeError
		switch {
		case err == nil:
		case errors.As(err, &own):
			if code = max(code, int(own)); int(own) == exitFailed {
				bad = append(bad, sources[i].Name)
			}
		default:
			bad = append(bad, sources[i].Name)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%d of %s failed: %s", len(bad), term.Plural(int64(len(sources)), "source"), config.Names(bad))
	}
	if code != exitDone {
		return codeError(code)
	}
	return nil
}

// follow has do work on all sources at once, and labels each line that it prints with its source. A
// source that fails is said at once; the others go on.
func (a *app) follow(ctx context.Context, all *config.Config, sources []config.Source, asJSON bool, do func(context.Context, *app) error) error {
	width := 0
	for _, s := range sources {
		width = max(width, len(s.Name))
	}
	var alone sync.Mutex // one line at a time
	outcomes := make([]outcome, len(sources))
	var working sync.WaitGroup
	for i, s := range sources {
		working.Go(func() {
			b, err := a.at(all, s)
			if err == nil {
				b.paper, b.stdout = a.shownOn(), &labelled{mu: &alone, out: a.stdout, source: s.Name, width: width, json: asJSON}
				err = advised(s.Name, do(ctx, b))
			}
			if outcomes[i].err = err; failed(err) && ctx.Err() == nil {
				a.report(fmt.Errorf("%s: %w", s.Name, err))
			}
		})
	}
	working.Wait()
	if err := sameUsage(outcomes); err != nil {
		return err
	}
	return a.verdict(sources, outcomes)
}

// looksAtSeveral reports whether a command that only reads looks at several sources.
func (a *app) looksAtSeveral() bool {
	all, err := a.sourcesOf(nil)
	return err == nil && all != nil && a.global.only == "" && (len(all.Sources) > 1 || all.Tenants != nil)
}

// watchSeveral shows again and again what f prints of each source. One that fails is shown as such. It is
// not waited for: the next picture comes soon.
func (a *app) watchSeveral(cmd *cobra.Command, o *operating, every time.Duration, f func(context.Context, *app, *pgx.Conn) error) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	if !a.given(cmd, connectTimeoutFlag) {
		o.wait = 0
	}
	return a.watch(ctx, every, !o.json, func(page *term.Page) error {
		b := *a
		b.paper, b.stdout = a.shownOn(), page
		err := b.operate(cmd, o, f)
		if errors.As(err, new(*usageError)) {
			return err
		}
		return nil // the picture shows it
	})
}

// labelled writes lines to out, each with the name of a source: as a member of JSON, or in front.
type labelled struct {
	mu     *sync.Mutex // of out
	out    io.Writer
	source string
	width  int // columns of the longest name
	json   bool
	rest   []byte // the beginning of a line
}

func (l *labelled) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := l.rest[:i+1]
		if l.json {
			o := outcome{}
			o.out.Write(line)
			object, err := named(l.source, &o)
			if err != nil {
				return 0, err
			}
			line = append(object, '\n')
		} else {
			line = fmt.Appendf(nil, "%-*s  %s", l.width, l.source, line)
		}
		l.mu.Lock()
		_, err := l.out.Write(line)
		l.mu.Unlock()
		if err != nil {
			return 0, err
		}
		l.rest = append(l.rest[:0], l.rest[i+1:]...)
	}
}
