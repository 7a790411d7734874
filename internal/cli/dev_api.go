package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/sqlschema"
)

// devAPI is what dev adds to the HTTP interface.
func (r *devRun) devAPI() *httpapi.Dev {
	_, r.token = access.New("dev", access.All, time.Time{})
	return &httpapi.Dev{Token: r.token, About: r.about, Sink: r.receiver.sink, Connect: r.connectForSQL, Backfill: r.connectForBackfill, Config: r.readConfiguration, Change: r.changeConfiguration}
}

// dashboardURL returns the URL of the dashboard with the token. What is behind the # reaches no
// server and no log of one.
func (r *devRun) dashboardURL() string {
	if r.url == "" {
		return ""
	}
	return r.url + "/#token=" + r.token
}

func (r *devRun) about() httpapi.DevAbout {
	ready := r.readyNow()
	out := httpapi.DevAbout{SinkURL: r.receiver.url, ToSink: r.toSink, Triggers: []httpapi.DevTrigger{}}
	if r.forwardTo != "" {
		out.ForwardTo = &r.forwardTo
	}
	if r.file != "" {
		out.Config = &r.file
	}
	for _, t := range ready.Triggers {
		out.Triggers = append(out.Triggers, httpapi.DevTrigger{Name: t.Name, Table: t.Table, URL: t.URL, ForwardURL: t.ForwardURL, Signed: t.Signed})
	}
	return out
}

// devRole is the role of SQL that somebody types into the dashboard.
const devRole = "rowhook_dev"

// sqlTimeout bounds a statement of it.
const sqlTimeout = 10 * time.Second

// makeRole makes the role of SQL from the dashboard, with a password of this start. It is no
// superuser, so SQL can't leave the database: it can't read files or run programs.
func (r *devRun) makeRole(ctx context.Context, conn *pgx.Conn) error {
	password := rand.Text()
	_, err := conn.Exec(ctx, fmt.Sprintf(`
do $do$ begin
  if not exists (select from pg_catalog.pg_roles where rolname = '%[1]s') then
    create role %[1]s;
  end if;
end $do$;
alter role %[1]s login nosuperuser nocreatedb nocreaterole noreplication nobypassrls password '%[2]s';
grant pg_read_all_data, pg_write_all_data to %[1]s;
do $do$ begin
  if exists (select from pg_catalog.pg_namespace where nspname = 'public') then
    grant usage, create on schema public to %[1]s;
  end if;
end $do$`, devRole, password))
	if err != nil {
		return fmt.Errorf("make the role %s: %w", devRole, err)
	}
	u, err := url.Parse(r.server.URL(devDatabaseName))
	if err != nil {
		return fmt.Errorf("read the URL of the private Postgres: %w", err)
	}
	u.User = url.UserPassword(devRole, password)
	r.sqlURL = u.String()
	return nil
}

// connectForSQL opens a session for SQL from the dashboard.
func (r *devRun) connectForSQL(ctx context.Context, notice func(*pgconn.Notice)) (*pgx.Conn, error) {
	cfg, err := session.Parse(r.sqlURL)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["application_name"] = "rowhook dev sql"
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice(n) }
	conn, err := session.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("set statement_timeout = %d", sqlTimeout.Milliseconds())); err != nil {
		_ = conn.Close(ctx) // the first error is what matters
		return nil, fmt.Errorf("prepare a session for SQL: %w", err)
	}
	return conn, nil
}

// connectForBackfill opens a session for a backfill with a condition from the dashboard. As the
// superuser, the condition could do what SQL from the dashboard can't, also by a function that this
// has made.
func (r *devRun) connectForBackfill(ctx context.Context) (*pgx.Conn, error) {
	admin, err := session.Open(ctx, r.server.URL(devDatabaseName))
	if err != nil {
		return nil, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	// What makes payloads is made anew by each apply. It and uuid7 run with the rights of their caller.
	if _, err := admin.Exec(ctx, `
do $do$ declare f pg_catalog.regprocedure; begin
  for f in select p.oid from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            where n.nspname = 'rowhook' and p.proname ~ '^(payload_[0-9]+|uuid7)$' and not p.prosecdef loop
    execute pg_catalog.format('grant execute on function %s to `+devRole+`', f);
  end loop;
end $do$`); err != nil {
		return nil, fmt.Errorf("let the role %s make payloads: %w", devRole, err)
	}
	conn, err := r.connectForSQL(ctx, func(*pgconn.Notice) {})
	if err != nil {
		return nil, err
	}
	if err := pg.Pin(ctx, conn); err != nil {
		_ = conn.Close(ctx) // the first error is what matters
		return nil, err
	}
	return conn, nil
}

// readConfiguration returns the configuration as it is in its file.
func (r *devRun) readConfiguration(ctx context.Context) (*httpapi.DevConfig, error) {
	out := &httpapi.DevConfig{}
	if out.ReadOnly = r.readOnly(); out.ReadOnly != "" {
		if r.file != "" {
			out.Path = &r.file
		}
		if r.file != standardInput {
			err := r.plan(ctx, out, func() (*config.Config, error) { return r.devConfig(r.devOptions) })
			return out, err
		}
		out.Problems, out.Warnings = []httpapi.DevProblem{}, []httpapi.DevProblem{}
		return out, nil
	}
	text, err := os.ReadFile(r.file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return r.checkText(ctx, string(text))
}

// readOnly says why the configuration can't be changed by the dashboard; "": it can.
func (r *devRun) readOnly() string {
	switch r.file {
	case "":
		return "the sample has no file: start rowhook dev with -f FILE"
	case standardInput:
		return "the configuration came by standard input"
	}
	if info, err := os.Stat(r.file); err == nil && info.IsDir() {
		return r.file + " is a directory of several files"
	}
	return ""
}

// checkText returns what is to be said of a text for the file.
func (r *devRun) checkText(ctx context.Context, text string) (*httpapi.DevConfig, error) {
	out := &httpapi.DevConfig{Path: &r.file, Text: &text, ETag: etag([]byte(text))}
	err := r.plan(ctx, out, func() (*config.Config, error) { return r.parseText(text) })
	return out, err
}

func (r *devRun) parseText(text string) (*config.Config, error) {
	lookup := r.lookup
	if r.toSink {
		lookup = nil // as for the file
	}
	cfg, err := config.Read(r.file, strings.NewReader(text), lookup)
	if err != nil {
		return nil, err
	}
	return cfg.Single(r.global.only)
}

// plan fills in what is wrong with a configuration, or else what an apply would change.
func (r *devRun) plan(ctx context.Context, out *httpapi.DevConfig, read func() (*config.Config, error)) error {
	out.Problems, out.Warnings, out.Plan = []httpapi.DevProblem{}, []httpapi.DevProblem{}, json.RawMessage("null")
	pointed, plan, err := r.planOf(ctx, read)
	var wrong *config.Error
	switch {
	case errors.As(err, &wrong):
		out.Problems = devProblems(wrong.Problems)
		return nil
	case errors.As(err, new(*usageError)):
		out.Problems = append(out.Problems, httpapi.DevProblem{Message: err.Error()})
		return nil
	case err != nil:
		return err
	}
	out.Warnings = devProblems(pointed.Warnings)
	out.Plan, err = json.Marshal(planJSON(plan, pointed, devDatabaseName, true))
	return err
}

func (r *devRun) planOf(ctx context.Context, read func() (*config.Config, error)) (*config.Config, *sqlschema.Plan, error) {
	cfg, err := read()
	if err != nil {
		return nil, nil, err
	}
	pointed, err := r.point(cfg)
	if err != nil {
		return nil, nil, err
	}
	conn, err := session.Open(ctx, r.server.URL(devDatabaseName))
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	plan, err := sqlschema.Applier{Migrator: &r.migrator}.Plan(ctx, conn, pointed.cfg.Triggers, pointed.cfg.Settings)
	if err != nil {
		return nil, nil, explainApply(ctx, err, pointed.cfg)
	}
	return pointed.cfg, plan, nil
}

func devProblems(all []config.Problem) []httpapi.DevProblem {
	out := []httpapi.DevProblem{}
	for _, p := range all {
		out = append(out, httpapi.DevProblem{File: p.File, Line: p.Line, Column: p.Column, Key: p.Key, Message: p.Message})
	}
	return out
}

// changeConfiguration checks another text for the configuration, and writes and applies it.
func (r *devRun) changeConfiguration(ctx context.Context, to httpapi.DevChange) (*httpapi.DevConfig, error) {
	if why := r.readOnly(); why != "" {
		return nil, httpapi.DevReadOnly(why)
	}
	out, err := r.checkText(ctx, to.Text)
	if err != nil || !to.Apply || len(out.Problems) > 0 {
		return out, err
	}
	cfg, err := r.parseText(to.Text)
	if err != nil {
		return nil, err
	}
	err = r.reapplier.order(ctx, func(ctx context.Context) error { return r.writeAndApply(ctx, to, cfg) })
	var wrong *config.Error
	switch {
	case errors.As(err, &wrong): // of the database, since the plan was made
		out.Problems = devProblems(wrong.Problems)
		return out, nil
	case err != nil:
		return nil, err
	}
	out.Applied = true
	return out, nil
}

// writeAndApply writes the text into the file, and applies it. If that fails, the file is as before.
func (r *devRun) writeAndApply(ctx context.Context, to httpapi.DevChange, cfg *config.Config) error {
	before, err := os.ReadFile(r.file)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if etag(before) != to.ETag {
		return httpapi.DevConflict(r.file)
	}
	if err := replaceFile(r.file, []byte(to.Text)); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if err := r.applyAgain(ctx, cfg); err != nil {
		return errors.Join(err, replaceFile(r.file, before))
	}
	return nil
}

// replaceFile replaces the content of a file at once. Its mode stays.
func replaceFile(path string, text []byte) (err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = bytes.NewReader(text).WriteTo(f)
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is what matters
	}
	return err
}

func etag(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
