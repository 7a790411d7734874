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

// HiddenRowsError says that row level security hides rows of Rowhook's own tables from a role. Rows
// that the role does not find may exist, so no conclusion can be drawn.
type HiddenRowsError struct {
	Role   string   // "": not known
	Tables []string // schema-qualified
	err    error    // the server's error; nil: the catalog said so
}

func (e *HiddenRowsError) Error() string {
	whose := "this role"
	if e.Role != "" {
		whose = "the role " + pg.PlainName(e.Role)
	}
	return fmt.Sprintf("row level security keeps rows of %s from %s, so the state of Rowhook can't be read: %s, or use a role with bypassrls",
		strings.Join(e.Tables, ", "), whose, disableRowSecurity(e.Tables))
}

// Unwrap returns the error of the server, or nil.
func (e *HiddenRowsError) Unwrap() error { return e.err }

func disableRowSecurity(tables []string) string {
	statements := make([]string, len(tables))
	for i, t := range tables {
		statements[i] = "alter table " + t + " disable row level security"
	}
	return strings.Join(statements, "; ")
}

// RowSecurity is the Postgres setting row_security. While it is off, a statement from which row
// level security would hide rows fails, instead of finding fewer. Rowhook sets it for its own
// sessions, and by [SeeAllRows] for a transaction.
const RowSecurity = "row_security"

// SeeAllRows turns RowSecurity off for the rest of a transaction. A session that a pooler may share
// keeps its settings.
const SeeAllRows = "set local " + RowSecurity + " = off"

// CheckVisible returns a *HiddenRowsError if row level security hides rows of Rowhook's own tables
// from the session's role. It reads the catalog alone. So it works if the schema is missing, or is
// of another version.
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

// SecuredTable is a table of Rowhook's own that has row level security. Row level security is of no
// use there.
type SecuredTable struct {
	Table string // schema-qualified
	// Captures says that row level security applies to captures, too. Captures write as the owner
	// of the table, who is exempt unless row level security is forced.
	Captures bool
}

// Problem says what is wrong.
func (t *SecuredTable) Problem() string {
	effect := "dispatchers and commands of other roles stop with an error"
	if t.Captures {
		effect = "it is forced on the owner, who captures changes: writes to watched tables fail, or their events are lost"
	}
	return fmt.Sprintf("row level security is on for %s, and %s", t.Table, effect)
}

// Remedy says what to do about it.
func (t *SecuredTable) Remedy() string { return disableRowSecurity([]string{t.Table}) }

// FindSecured returns the tables of Rowhook's own that have row level security, for whatever roles.
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

// quotedName matches a name in a message of the server. Its quotes depend on the language of the
// server.
var quotedName = regexp.MustCompile(`["“„«»]\s*([^"“”„«»]+?)\s*["“”«»]`)

// ExplainHidden returns a *HiddenRowsError for an error that Postgres raises while RowSecurity is
// off. It returns other errors unchanged.
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

// quoteOwn writes the name of a table of Rowhook's own for SQL.
func quoteOwn(table string) string { return pg.PlainName("rowhook", table) }
