package sqlschema

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// PublishedError says that a publication would publish Rowhook's tables, with a new partition of
// its history each day. A subscriber without these tables stops replicating, also the users' own
// tables.
type PublishedError struct {
	Publications []string // names
}

// Error names the publications and says what to do.
func (e *PublishedError) Error() string {
	return fmt.Sprintf("nothing was installed: %s would publish Rowhook's tables, too, and a subscriber that does not have them stops replicating: "+
		"publish named tables (create publication ... for table ..., or from PostgreSQL 15 on for tables in schema ...), or use --allow-publication if no subscriber is affected",
		publicationsOf(e.Publications))
}

func publicationsOf(names []string) string {
	if len(names) == 1 {
		return "the publication " + pg.PlainName(names[0])
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = pg.PlainName(n)
	}
	return "the publications " + strings.Join(quoted, ", ")
}

// findPublications returns the publications of all tables, or of all tables in the schema rowhook.
// The session must be pinned.
func findPublications(ctx context.Context, db pg.Queryer) ([]string, error) {
	var server int
	if err := db.QueryRow(ctx, "select current_setting('server_version_num')::integer").Scan(&server); err != nil {
		return nil, fmt.Errorf("read the version of the server: %w", err)
	}
	sql := "select pubname::text as name from pg_catalog.pg_publication where puballtables"
	if server >= 150000 {
		sql += `
union
select p.pubname::text from pg_catalog.pg_publication p
  join pg_catalog.pg_publication_namespace s on s.pnpubid = p.oid
  join pg_catalog.pg_namespace n on n.oid = s.pnnspid and n.nspname = 'rowhook'`
	}
	found, err := pg.Collect[struct{ Name string }](ctx, db, sql+" order by 1")
	if err != nil {
		return nil, fmt.Errorf("look for publications: %w", err)
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Name)
	}
	return names, nil
}

// refusePublications returns a *PublishedError if Rowhook is not installed yet and would be
// published.
func refusePublications(ctx context.Context, conn *pgx.Conn) error {
	return pg.Pinned(ctx, conn, func() error {
		var installed bool
		err := conn.QueryRow(ctx, `
select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = 'rowhook' and c.relname = 'event_log')`).Scan(&installed)
		if err != nil {
			return fmt.Errorf("look for the schema rowhook: %w", err)
		}
		if installed {
			return nil
		}
		names, err := findPublications(ctx, conn)
		if err != nil || len(names) == 0 {
			return err
		}
		return &PublishedError{Publications: names}
	})
}

// warnOfPublications adds a warning about publications that publish Rowhook's tables, or would
// after an installation.
func (p *planner) warnOfPublications(ctx context.Context) error {
	names, err := findPublications(ctx, p.conn)
	if err != nil || len(names) == 0 {
		return err
	}
	if p.in.database == 0 {
		p.plan.Warnings = append(p.plan.Warnings, "apply installs nothing without --allow-publication: "+publicationsOf(names)+
			" would publish Rowhook's tables, too, and a subscriber that does not have them stops replicating: publish named tables or schemas")
		return nil
	}
	p.plan.Warnings = append(p.plan.Warnings, publicationsOf(names)+": Rowhook's tables are published, too, with a new partition each day, and a subscriber that "+
		"does not have them stops replicating: publish named tables or schemas")
	return nil
}
