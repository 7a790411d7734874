package rowhooktest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// installation is what goes into a test's database.
type installation struct {
	options  options
	config   *config.Config
	triggers []trigger.Spec // as they send to the receiver
	settings trigger.Settings
	scripts  []sandbox.Script
	secret   string // in place of those that are not set

	private *localpg.Server // on which the database is; nil: the caller's
}

func readInstallation(o options) (*installation, error) {
	in := &installation{options: o, secret: sandbox.MakeSecret()}
	var err error
	if o.config != "" {
		in.config, err = config.Parse("rowhooktest.Config", []byte(o.config))
	} else {
		in.config, err = config.Load(o.file, nil)
	}
	if err != nil {
		return nil, err
	}
	in.triggers, in.settings = sandbox.Point(in.config.Triggers, in.source), sandbox.Reachable(in.config.Settings)
	for i, s := range o.scripts {
		if s.path == "" {
			in.scripts = append(in.scripts, sandbox.Script{File: fmt.Sprintf("SQL %d", i+1), Text: s.text})
			continue
		}
		read, err := sandbox.ReadScripts(s.path)
		if err != nil {
			return nil, err
		}
		in.scripts = append(in.scripts, read...)
	}
	return in, nil
}

// source gives out the variables that the configuration refers to. Files are not read in tests: a
// placeholder stands for each.
func (in *installation) source(name string) (string, error) {
	return trigger.Variables(func(name string) (string, bool) {
		if value, ok := in.options.env[name]; ok {
			return value, true
		}
		return os.LookupEnv(name)
	})(name)
}

// known returns an error if the configuration has no trigger of this name.
func (in *installation) known(name string) error {
	var names []string
	for _, s := range in.triggers {
		if s.Name == name {
			return nil
		}
		names = append(names, s.Name)
	}
	return fmt.Errorf("%s has no trigger %q; it has %s%s", in.config.File, name, config.Names(names), suggest.Hint(name, names))
}

// database returns the database of a test, ready to be used, and a session that the test holds until
// its end. made is nil for the caller's own database.
func (in *installation) database(ctx context.Context) (url string, made *clone.Database, holding *pgx.Conn, err error) {
	if url = in.options.ownURL; url != "" {
		if holding, err = occupy(ctx, url); err == nil {
			err = in.install(ctx, url)
		}
		return url, nil, holding, err
	}
	server, private, err := serverOf(ctx, in.options)
	if err != nil {
		return "", nil, nil, err
	}
	in.private = private
	if holding, err = shared.roomOf(server).enter(ctx, server); err != nil {
		return "", nil, nil, err
	}
	if made, err = in.clone(ctx, holding, server); err != nil {
		return "", nil, holding, err
	}
	return made.URL, made, holding, nil
}

// public returns the connection string of a database for others than this module.
func (in *installation) public(url string) string {
	if in.private == nil {
		return url
	}
	return in.private.Public(url)
}

// clone makes the database of a test.
func (in *installation) clone(ctx context.Context, admin *pgx.Conn, server string) (*clone.Database, error) {
	template, whole, err := in.template(server)
	if err != nil {
		return nil, err
	}
	made, err := clone.NewBy(ctx, admin, server, template)
	if err == nil && whole && shared.once(verified+server+" "+template.Key) {
		made, err = in.verify(ctx, server, template, made)
	}
	if err == nil && !whole {
		err = in.migrateAndApply(ctx, made.URL)
	}
	if err != nil && made != nil {
		err = errors.Join(err, made.Drop(context.WithoutCancel(ctx), dropPatience))
	}
	return made, err
}

// verified, with a server and a key, is what is done once for each template. The connection string
// of the server has the role, to which the template belongs.
const verified = "verified "

// template returns the template of the test's database. whole says that it has the triggers. It has
// not if nothing tells whether the migrations have changed since it was made.
func (in *installation) template(server string) (t clone.Template, whole bool, err error) {
	whole = in.options.version != ""
	if !whole {
		whole = !slices.ContainsFunc(in.options.migrations, func(m migration) bool { return len(m.sources) == 0 })
	}
	t = clone.Template{Base: in.options.template, Make: in.prepare}
	t.Key, err = in.key(whole)
	if whole {
		t.Make = func(ctx context.Context, url string) error {
			shared.once(verified + server + " " + t.Key) // this program has made it
			return in.install(ctx, url)
		}
	}
	return t, whole, err
}

// key returns a digest of all that the template depends on.
func (in *installation) key(whole bool) (string, error) {
	sum := sha256.New()
	migrations, err := sqlschema.Fingerprint()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(sum, "%q %q\n", migrations, moduleVersion())
	for _, s := range in.scripts {
		fmt.Fprintf(sum, "%q\n", s.Text)
	}
	if whole {
		applied, err := json.Marshal([]any{in.triggers, in.settings})
		if err != nil {
			return "", fmt.Errorf("encode the configuration: %w", err)
		}
		fmt.Fprintf(sum, "%q %q\n", applied, in.options.version)
		for _, m := range in.options.migrations {
			for _, source := range m.sources {
				if err := digest(sum, source); err != nil {
					return "", err
				}
			}
		}
	}
	return "rowhooktest " + hex.EncodeToString(sum.Sum(nil)), nil
}

func digest(sum hash.Hash, source fs.FS) error {
	err := fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := fs.ReadFile(source, name)
		fmt.Fprintf(sum, "%q %q\n", name, content)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the sources of the migrations: %w", err)
	}
	return nil
}

// moduleVersion returns the version of Rowhook that this program is built with.
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == "github.com/rowhook/rowhook" {
			return m.Version + m.Sum
		}
	}
	return ""
}

// verify looks once whether a clone is what this program would make: a program in development has no
// version that tells. If it is not, the template is made anew.
func (in *installation) verify(ctx context.Context, server string, t clone.Template, made *clone.Database) (*clone.Database, error) {
	conn, err := clone.Connect(ctx, made.URL)
	if err != nil {
		return made, err
	}
	plan, err := sqlschema.MakePlan(ctx, conn, in.triggers, in.settings)
	if err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))); err == nil && plan.Empty() {
		return made, nil
	}
	if err := errors.Join(t.Forget(ctx, server), made.Drop(ctx, dropPatience)); err != nil {
		return nil, err
	}
	return clone.New(ctx, server, t)
}

// install brings a database to the state that a test begins with.
func (in *installation) install(ctx context.Context, url string) error {
	if err := in.prepare(ctx, url); err != nil {
		return err
	}
	return in.migrateAndApply(ctx, url)
}

// prepare runs the scripts and installs the schema rowhook, unless it is there.
func (in *installation) prepare(ctx context.Context, url string) (err error) {
	conn, err := clone.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the test's database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var there bool
	if err := conn.QueryRow(ctx, "select pg_catalog.to_regclass('rowhook.trigger') is not null").Scan(&there); err != nil {
		return fmt.Errorf("look for the schema rowhook: %w", err)
	}
	if !there {
		if err := sandbox.RunScripts(ctx, url, in.scripts...); err != nil {
			return err
		}
	}
	return sqlschema.Migrate(ctx, conn, nil)
}

func (in *installation) migrateAndApply(ctx context.Context, url string) (err error) {
	for _, m := range in.options.migrations {
		if err := m.run(ctx, in.public(url)); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
	}
	conn, err := clone.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the test's database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return in.apply(ctx, conn)
}

func (in *installation) apply(ctx context.Context, conn *pgx.Conn) error {
	_, err := sqlschema.Apply(ctx, conn, in.triggers, in.settings, slog.New(slog.DiscardHandler))
	var found trigger.SpecErrors
	if !errors.As(err, &found) {
		return err
	}
	explained := config.ErrorOf(in.config.Explain(found)...)
	if len(in.scripts)+len(in.options.migrations) == 0 && in.options.ownURL == "" {
		return fmt.Errorf("%w\nThe database starts empty: say what makes the tables, by rowhooktest.Schema, SQL or Migrate", explained)
	}
	return explained
}

// Install installs Rowhook in a database and applies the triggers, as [Start] does, for programs that
// make the databases of their tests themselves. A migrator of pgtestdb may call it, so that its
// template has the triggers; [Start] with [Database] then finds nothing left to do. The options are
// those of Start.
func Install(ctx context.Context, databaseURL string, options ...Option) error {
	o, err := collect(append(slices.Clone(options), Database(databaseURL)))
	if err != nil {
		return err
	}
	in, err := readInstallation(o)
	if err != nil {
		return err
	}
	return in.install(ctx, databaseURL)
}

// explainSQL adds the line of the statement to an error of Postgres.
func explainSQL(err error, sql string) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	if pg.Detail != "" {
		return fmt.Errorf("%w: %s\n%s", err, pg.Detail, sql)
	}
	return fmt.Errorf("%w\n%s", err, sql)
}
