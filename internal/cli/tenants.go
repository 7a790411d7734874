package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
)

const (
	// tenantsTimeout bounds a query for tenants.
	tenantsTimeout = 10 * time.Second
	// mostTenants is the most rows that it may return. A query that lacks its condition would have the
	// process open more connections than any server has.
	mostTenants = 5000
)

// tenants are what a query has found.
type tenants struct {
	sources []config.Source
	refused map[string]error // by the name in the row
}

// readTenants asks for the tenants. It only reads.
func (a *app) readTenants(ctx context.Context, all *config.Config) (found tenants, err error) {
	from := all.Tenants
	i := slices.IndexFunc(all.Sources, func(s config.Source) bool { return s.Name == from.Source })
	b, err := a.at(all, all.Sources[i])
	if err != nil {
		return found, err
	}
	t, err := b.databaseTarget()
	if err != nil {
		return found, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*tenantsTimeout)
	defer cancel()
	conn, err := b.connect(ctx, t.throughPooler(), 0)
	if err != nil {
		return found, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var rows []config.Row
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("set local statement_timeout = %d", tenantsTimeout.Milliseconds())); err != nil {
			return err
		}
		query := strings.TrimRight(strings.TrimSpace(from.Query), "; \n\t")
		// The names of the columns are checked by this, and it is one statement.
		answer, err := tx.Query(ctx, "select name::text, host::text, database::text from (\n"+query+"\n) as tenants limit $1", mostTenants+1)
		if err != nil {
			return err
		}
		defer answer.Close()
		for answer.Next() {
			var texts [3]*string
			if err := answer.Scan(&texts[0], &texts[1], &texts[2]); err != nil {
				return err
			}
			row := [3]string{}
			for i, text := range texts {
				if text != nil {
					row[i] = *text
				}
			}
			rows = append(rows, config.Row{Name: row[0], Host: row[1], Database: row[2]})
		}
		return answer.Err()
	})
	if err != nil {
		return found, fmt.Errorf("ask the source %s for tenants: %w; correct sources.from.query, which needs the columns name, host and database, or the rights of its role", from.Source, explain(err))
	}
	if len(rows) > mostTenants {
		return found, fmt.Errorf("ask the source %s for tenants: there are more than %d; add a condition to sources.from.query", from.Source, mostTenants)
	}
	found.sources, found.refused = from.Of(rows, config.SourceNames(all.Sources))
	return found, nil
}

// tenantText returns the connection string of a tenant.
func (a *app) tenantText(s config.Source) (string, error) {
	text, err := trigger.Expand(s.URL, a.ownValue)
	if err != nil {
		return "", err
	}
	return config.Place(text, s.Host, s.Database)
}

// sourcesNow is sourcesOf with the tenants as they are now. If these can't be read, it returns the
// sources of the file, and in unread why.
func (a *app) sourcesNow(ctx context.Context, cfg *config.Config) (all *config.Config, unread, err error) {
	all, err = a.sourcesOf(cfg)
	if err != nil || all == nil || all.Tenants == nil {
		return all, nil, err
	}
	if slices.Contains(config.SourceNames(all.Sources), a.global.only) {
		return all, nil, nil
	}
	found, err := a.readTenants(ctx, all)
	if err != nil {
		if a.global.only != "" {
			return nil, nil, err
		}
		return all, err, nil
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(found.refused)) {
		problems = append(problems, fmt.Errorf("the tenant %q is refused: %w", name, found.refused[name]))
	}
	return all.With(found.sources), errors.Join(problems...), nil
}

// withUnread adds to how a command has ended for the sources that are known that others are not.
func withUnread(err, unread error) error {
	switch {
	case unread == nil:
		return err
	case failed(err):
		return errors.Join(err, unread)
	}
	return unread
}

// followTenants keeps the members of the fleet at what the query for tenants says, until ctx is done. What
// can't be read leaves them as they were.
func (r *fleetRun) followTenants(ctx context.Context) {
	said := ""
	for {
		r.mu.Lock()
		cfg, all := r.now.cfg, r.now.all
		r.mu.Unlock()
		every := time.Duration(config.DefaultTenantsEvery)
		if all.Tenants != nil {
			every = all.Tenants.Every
			found, err := r.readTenants(ctx, all)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				err = r.takeTenants(cfg, all, found)
			}
			switch {
			case err == nil:
				said = ""
			case err.Error() != said:
				said = err.Error()
				r.log.Error("tenants stay as they were", "error", err)
			}
		}
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-r.changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// takeTenants makes what a query has found the tenants. One that is refused stays as it was.
func (r *fleetRun) takeTenants(cfg, all *config.Config, found tenants) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now.all != all {
		return nil // there is a newer file, and it is asked again
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(found.refused)) {
		problems = append(problems, fmt.Errorf("%s: %w", name, found.refused[name]))
		for _, s := range r.now.tenants {
			if s.Name == name && !slices.ContainsFunc(found.sources, func(t config.Source) bool { return t.Name == name }) {
				found.sources = append(found.sources, s)
			}
		}
	}
	sorting.By(found.sources, func(a, b config.Source) int { return strings.Compare(a.Name, b.Name) })
	before := r.now.signature
	r.now.tenants = found.sources
	if r.now.signature = r.signature(found.sources); r.now.signature != before {
		if err := r.set(cfg, all); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// signature tells lists of tenants apart, also by the credentials of which their connection strings are
// made.
func (r *fleetRun) signature(found []config.Source) string {
	var all strings.Builder
	for _, s := range found {
		all.WriteString(r.madeOf(s) + "\n")
	}
	return all.String()
}

// madeOf says what a source is made of. A tenant's connection string is not read again for each
// connection, so it counts as it is now.
func (r *fleetRun) madeOf(s config.Source) string {
	made := fmt.Sprintf("%#v", s)
	if s.Host != "" {
		text, err := r.tenantText(s)
		made += fmt.Sprintf(" %x %v", sha256.Sum256([]byte(text)), err)
	}
	return made
}
