package sqlschema

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// PublishedError says that a publication would publish the tables of Rowhook, and each new day of its history. A subscriber without them
// stops, the users' own tables included.
type PublishedError struct {
	Publications []string // names
}

func (e *PublishedError) Error() string {
	return fmt.Sprintf("nothing was installed: %s would publish Rowhook's tables too, and a subscriber that does not have them stops replicating: "+
		"name what is published (create publication ... for table ..., or from PostgreSQL 15 on for tables in schema ...), or go on by --allow-publication where no subscriber minds",
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

// findPublications lists those that publish all tables, or all that are in the schema rowhook. The session is pinned.
func findPublications(ctx context.Context, db pg.Queryer) ([]string, error) {
	var server int
	if err := db.QueryRow(ctx, "select current_setting('server_version_num')::integer").Scan(&server); err != nil {
		return nil, fmt.Errorf("ask the server for its version: %w", err)
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

// refusePublications returns a *PublishedError where nothing is installed yet and it would be published.
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

// warnOfPublications tells of those that publish Rowhook's tables, or will once it is installed.
func (p *planner) warnOfPublications(ctx context.Context) error {
	names, err := findPublications(ctx, p.conn)
	if err != nil || len(names) == 0 {
		return err
	}
	if p.in.database == 0 {
		p.plan.Warnings = append(p.plan.Warnings, "apply installs nothing unless --allow-publication is given: "+publicationsOf(names)+
			" would publish Rowhook's tables too, and a subscriber that does not have them stops replicating: name what is published, by tables or schemas")
		return nil
	}
	p.plan.Warnings = append(p.plan.Warnings, publicationsOf(names)+": the tables of Rowhook are published too, with each new day of its history, and a subscriber that "+
		"does not have them stops replicating: name what is published, by tables or schemas")
	return nil
}
