package queue

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rowhook/rowhook/internal/pg"
)

// HiddenRowsError says that row level security keeps rows of Rowhook's own tables from a role. Whatever the role does not find there
// may be there all the same, so nothing is concluded from it.
type HiddenRowsError struct {
	Role   string   // "": not known
	Tables []string // schema-qualified
	err    error    // what the server said; nil: it was not asked for rows
}

func (e *HiddenRowsError) Error() string {
	whose := "this role"
	if e.Role != "" {
		whose = "the role " + pg.PlainName(e.Role)
	}
	return fmt.Sprintf("row level security keeps rows of %s from %s, so that what is there can't be told: %s, or use a role with bypassrls",
		strings.Join(e.Tables, ", "), whose, disableRowSecurity(e.Tables))
}

// Unwrap returns the server's error, if there was one.
func (e *HiddenRowsError) Unwrap() error { return e.err }

func disableRowSecurity(tables []string) string {
	statements := make([]string, len(tables))
	for i, t := range tables {
		statements[i] = "alter table " + t + " disable row level security"
	}
	return strings.Join(statements, "; ")
}

// RowSecurity has every statement of a session fail where row level security would keep rows from it, instead of finding fewer. It is a
// setting of Postgres', for a session of ours or, by [SeeAllRows], for a transaction.
const RowSecurity = "row_security"

// SeeAllRows is the same for the rest of a transaction. A session that a pooler may hand to others keeps its own settings.
const SeeAllRows = "set local " + RowSecurity + " = off"

// CheckVisible returns a *HiddenRowsError if the session's role may not see all rows of Rowhook's own tables. It asks the catalog alone,
// so that it works where the schema is missing, or of another version.
func CheckVisible(ctx context.Context, db pg.Queryer) error {
	hidden, err := pg.Collect[struct{ Role, Table string }](ctx, db, `
select current_user::pg_catalog.text as role, pg_catalog.format('%I.%I', n.nspname, c.relname) as "table"
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'rowhook' and c.relrowsecurity and c.relkind in ('r', 'p') and pg_catalog.row_security_active(c.oid)
 order by c.relname`)
	if err != nil {
		return fmt.Errorf("look for row level security: %w", err)
	}
	if len(hidden) == 0 {
		return nil
	}
	e := &HiddenRowsError{Role: hidden[0].Role}
	for _, h := range hidden {
		e.Tables = append(e.Tables, h.Table)
	}
	return e
}

// SecuredTable is a table of Rowhook's own that has row level security, which does nothing good.
type SecuredTable struct {
	Table string // schema-qualified
	// Captures says that it holds for what captures write, too. They write as the owner, who is exempt unless it is forced.
	Captures bool
}

// Problem says what is wrong.
func (t *SecuredTable) Problem() string {
	effect := "dispatchers and operators of other roles refuse to work with it"
	if t.Captures {
		effect = "it is forced on the owner, too, as whom changes are captured: writes to watched tables fail, or their events are lost"
	}
	return fmt.Sprintf("row level security is on for %s, and %s", t.Table, effect)
}

// Remedy says what to do about it.
func (t *SecuredTable) Remedy() string { return disableRowSecurity([]string{t.Table}) }

// FindSecured lists the tables of Rowhook's own that have row level security, whomever it concerns.
func FindSecured(ctx context.Context, db pg.Queryer) ([]SecuredTable, error) {
	tables, err := pg.Collect[SecuredTable](ctx, db, `
select pg_catalog.format('%I.%I', n.nspname, c.relname) as "table",
       c.relforcerowsecurity and not o.rolsuper and not o.rolbypassrls as captures
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_roles o on o.oid = c.relowner
 where n.nspname = 'rowhook' and c.relrowsecurity and c.relkind in ('r', 'p')
 order by c.relname`)
	if err != nil {
		return nil, fmt.Errorf("look for row level security: %w", err)
	}
	return tables, nil
}

// quotedName is a name in a message of the server's, whose quotes depend on its language.
var quotedName = regexp.MustCompile(`["“„«»]\s*([^"“”„«»]+?)\s*["“”«»]`)

// ExplainHidden makes a *HiddenRowsError of an error of a session that is not to take fewer rows for all, and leaves others as they are.
func ExplainHidden(err error) error {
	var pg *pgconn.PgError
	var known *HiddenRowsError
	if !errors.As(err, &pg) || pg.Code != pgerrcode.InsufficientPrivilege || pg.Routine != "check_enable_rls" || errors.As(err, &known) {
		return err
	}
	table := "one of its tables"
	if m := quotedName.FindStringSubmatch(pg.Message); m != nil {
		table = m[1]
	}
	return &HiddenRowsError{Tables: []string{quoteOwn(table)}, err: err}
}

// quoteOwn writes a table of Rowhook's own for SQL.
func quoteOwn(table string) string { return pg.PlainName("rowhook", table) }
