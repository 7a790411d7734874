package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/child"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/trigger"
)

// devCommandStop is the default of --stop-timeout.
const devCommandStop = 10 * time.Second

// urlVariable names the address of the HTTP interface in the environment of a command.
const urlVariable = "ROWHOOK_URL"

// libpqVariables say where and how programs connect that use libpq, or do as it does. The command
// gets those of the private Postgres alone: psql without arguments must not find another server.
// Other variables that begin with PG may be the command's own.
var libpqVariables = strings.Fields(`PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE PGOPTIONS
PGSSLMODE PGREQUIRESSL PGSSLCOMPRESSION PGSSLCERT PGSSLCERTMODE PGSSLKEY PGSSLROOTCERT PGSSLCRL PGSSLCRLDIR PGSSLSNI PGSSLNEGOTIATION
PGSSLMINPROTOCOLVERSION PGSSLMAXPROTOCOLVERSION PGMINPROTOCOLVERSION PGMAXPROTOCOLVERSION PGREQUIREPEER PGREQUIREAUTH PGCHANNELBINDING
PGGSSENCMODE PGGSSDELEGATION PGGSSLIB PGKRBSRVNAME PGTARGETSESSIONATTRS PGLOADBALANCEHOSTS`)

// ownVariables are what commands in the sandbox need. Those that are "" are not set.
func (r *devRun) ownVariables() map[string]string {
	set := map[string]string{
		databaseURLVariable:        r.databaseURL(),
		sandbox.SinkURLVariable:    r.receiver.url,
		sandbox.SinkSecretVariable: r.secretInUse(),
		urlVariable:                r.url,
	}
	if r.natsServer != nil {
		set[sandbox.NATSURLVariable] = r.natsServer.URL()
	}
	return set
}

// environment returns the environment of a command.
func (r *devRun) environment() []string {
	set := r.ownVariables()
	if u, err := url.Parse(r.databaseURL()); err == nil {
		set["PGUSER"] = u.User.Username()
		set["PGPASSWORD"], _ = u.User.Password()
		set["PGHOST"], set["PGPORT"], _ = net.SplitHostPort(u.Host)
		set["PGDATABASE"], set["PGSSLMODE"] = strings.TrimPrefix(u.Path, "/"), "disable"
	}
	for _, name := range r.current().madeUp {
		set[name] = r.secret
	}
	unset := slices.Concat(libpqVariables, []string{"ROWHOOK_LISTEN_URL", "ROWHOOK_HTTP_DATABASE_URL"})
	var env []string
	for _, entry := range r.environ {
		name, _, _ := strings.Cut(entry, "=")
		if _, ours := set[name]; !ours && !slices.Contains(unset, name) {
			env = append(env, entry)
		}
	}
	for name, value := range set {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	slices.Sort(env)
	return env
}

// databaseURL returns the URL of the private database as other programs get it. Some know only this
// one of the two schemes.
func (r *devRun) databaseURL() string {
	return "postgresql" + strings.TrimPrefix(r.server.URL(devDatabaseName), "postgres")
}

// unsetSecrets returns the variables that are a trigger's whole secret, and are not set. The command
// gets the secret that was made up by them, so that an app finds it where it looks for its own.
func unsetSecrets(specs []trigger.Spec, source trigger.Source) []string {
	var names []string
	for _, s := range specs {
		found, err := trigger.References(s.Request().Secret)
		if err != nil || len(found) != 1 || strings.HasPrefix(found[0], trigger.FilePrefix) || s.Request().Secret != "${"+found[0]+"}" {
			continue
		}
		if value, _ := source(found[0]); value == "" {
			names = append(names, found[0])
		}
	}
	return names
}

// runMigrations runs the commands of --migrate one after another. Their output is no part of the
// output of the command, so it goes to standard error.
func (r *devRun) runMigrations(ctx context.Context) error {
	for _, command := range r.migrations {
		code, err := child.Run(ctx, child.Config{
			Args: []string{"/bin/sh", "-c", command}, Env: r.environment(), Stdout: r.stderr, Stderr: r.stderr, StopTimeout: r.stopTimeout,
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("--migrate %q: %w", command, err)
		case code != 0:
			return errors.New("--migrate: the command ended with exit code " + strconv.Itoa(code) + ": " + command)
		}
	}
	return nil
}

// runCommand runs the command, and keeps its exit code. failed ends the command.
func (r *devRun) runCommand(ctx context.Context, failed <-chan error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	signals, take := r.life.give()
	defer take()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		end(r.untilEnd(ctx, failed))
	}()
	code, err := child.Run(ctx, child.Config{
		Args: r.command, Env: r.environment(), Stdin: r.stdin, Stdout: r.stdout, Stderr: r.stderr,
		Signals: signals, StopTimeout: r.stopTimeout,
	})
	if err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errParentEnded) {
		return fmt.Errorf("the command was ended: %w", cause)
	}
	end(nil)
	<-watched
	r.code = code
	return nil
}
