package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// checkWhen lets Postgres parse a trigger's when against its table, without a lock that a writer
// would notice. It returns a message for people, or "" if the expression is valid for every
// captured operation.
//
// The expression is on lines of its own, so that a comment at its end can't hide what follows.
func checkWhen(ctx context.Context, conn *pgx.Conn, rel *relation, spec trigger.Spec) (string, error) {
	both := "only " + rel.sql() + " as old, only " + rel.sql() + " as new"
	message, err := parseWhen(ctx, conn, "select from "+both+" where (\n", spec.When, "\n)", rel)
	if message != "" || err != nil {
		return message, err
	}
	// A text is balanced both within parentheses and within brackets only if it is balanced itself.
	message, err = parseWhen(ctx, conn, "select from "+both+" where (array[\n", spec.When, "\n])[1]", rel)
	if message != "" || err != nil {
		if err == nil {
			message = "closes a parenthesis that it has not opened: write a single boolean expression"
		}
		return message, err
	}
	for _, op := range operations(&spec) {
		alias := map[operation]string{insertOp: "new", deleteOp: "old"}[op]
		if alias == "" {
			continue
		}
		missing := map[string]string{"new": "old", "old": "new"}[alias]
		message, err = parseWhen(ctx, conn, "select from only "+rel.sql()+" as "+alias+" where (\n", spec.When, "\n)", rel)
		if err != nil {
			return "", err
		}
		if message != "" {
			return fmt.Sprintf("mentions %s, which %s row does not have: remove %s from this trigger's \"on\" and use another trigger for it, "+
				"whose when mentions only %s", missing, map[operation]string{insertOp: "an inserted", deleteOp: "a deleted"}[op], op.word(), alias), nil
		}
	}
	return tryWhen(ctx, conn, rel, spec.When)
}

// missingInWhen names the first column in a trigger's when that does not exist, or returns "" if
// the expression has no such fault.
func missingInWhen(ctx context.Context, conn *pgx.Conn, rel *relation, spec trigger.Spec) (string, error) {
	_, err := conn.PgConn().Prepare(ctx, "", "select from only "+rel.sql()+" as old, only "+rel.sql()+" as new where (\n"+spec.When+"\n)", nil)
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return "", nil
	case !errors.As(err, &refused):
		return "", fmt.Errorf("check when: %w", err)
	case refused.Code != pgerrcode.UndefinedColumn:
		return "", nil
	}
	name := "a column"
	if words := strings.Split(refused.Message, " "); len(words) > 1 {
		name = "the column " + strings.Trim(pg.LastPart(words[1]), `"`)
	}
	return fmt.Sprintf("%s of %s", name, rel), nil
}

// parseWhen lets the server parse prefix + when + suffix. Its message describes an error as one of
// when.
func parseWhen(ctx context.Context, conn *pgx.Conn, prefix, when, suffix string, rel *relation) (string, error) {
	described, err := conn.PgConn().Prepare(ctx, "", prefix+when+suffix, nil)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		return explainWhen(pg, utf8.RuneCountInString(prefix), when, rel), nil
	case err != nil:
		return "", fmt.Errorf("check when: %w", err)
	case len(described.ParamOIDs) > 0:
		return "has a parameter ($1), which nothing sets: write the value", nil
	}
	return "", nil
}

func explainWhen(refused *pgconn.PgError, before int, when string, rel *relation) string {
	message := strings.NewReplacer("argument of WHERE must be type boolean, not type", "must be true or false (boolean), but is of type",
		"in WHERE", "in when").Replace(refused.Message)
	runes := []rune(when)
	switch at := int(refused.Position) - before - 1; {
	case refused.Position == 0 || at < 0:
	case at >= len(runes):
		message = "is incomplete (" + message + ")"
	default:
		message += fmt.Sprintf(" at character %d (%q)", at+1, string(runes[at:min(len(runes), at+20)]))
	}
	switch refused.Code {
	case pgerrcode.UndefinedTable, pgerrcode.AmbiguousColumn:
		message += ": write columns as new.name and old.name"
	case pgerrcode.UndefinedColumn:
		if parts := strings.Split(refused.Message, " "); len(parts) > 1 {
			message += suggest.Hint(strings.Trim(pg.LastPart(parts[1]), `"`), rel.columnNames())
		}
	case pgerrcode.FeatureNotSupported, pgerrcode.GroupingError, pgerrcode.WindowingError:
		message += ": use only the row's own columns and functions of them"
	default:
		if refused.Hint != "" {
			message += ": " + strings.TrimSuffix(refused.Hint, ".")
		}
	}
	return message
}

// tryWhen creates the trigger on a temporary copy of the table and rolls back. Only CREATE TRIGGER
// itself rejects everything that is not allowed in a WHEN, such as a subquery.
func tryWhen(ctx context.Context, conn *pgx.Conn, rel *relation, when string) (message string, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return "", fmt.Errorf("check when: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback(ctx)) }()
	if _, err := tx.Exec(ctx, "create temporary table rowhook_when (like "+rel.sql()+" including generated)"); err != nil {
		return "", ignoreRefusal(err) // without the right, the real CREATE TRIGGER decides
	}
	prefix := "create trigger rowhook_when after update on pg_temp.rowhook_when for each row when (\n"
	_, err = tx.Exec(ctx, prefix+when+"\n) execute function pg_catalog.suppress_redundant_updates_trigger()")
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == pgerrcode.FeatureNotSupported || pg.Code == pgerrcode.InvalidObjectDefinition) {
		pg.Message = strings.Replace(pg.Message, "trigger WHEN condition", "when", 1)
		return explainWhen(pg, utf8.RuneCountInString(prefix), when, rel), nil
	}
	return "", ignoreRefusal(err)
}

// ignoreRefusal returns nil for an error with which the server rejected a statement. It returns any
// other error.
func ignoreRefusal(err error) error {
	var pg *pgconn.PgError
	if err == nil || errors.As(err, &pg) {
		return nil
	}
	return fmt.Errorf("check when: %w", err)
}
