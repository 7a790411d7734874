package cli

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/session"
)

//go:embed sample.sql
var sampleTable string

// devDatabaseName is the database that dev works in.
const devDatabaseName = "app"

// script is SQL that creates the tables of the private database.
type script struct {
	file, text string
	always     bool // run it also in a database of an earlier start
}

// devScript returns the file of --init, or the script of the sample table.
func devScript(o devOptions) (script, error) {
	if o.file == "" {
		return script{file: "the sample", text: sampleTable, always: true}, nil
	}
	if o.init == "" {
		return script{}, nil
	}
	text, err := os.ReadFile(o.init)
	if err != nil {
		return script{}, usagef("read the file of --init: %w", err)
	}
	return script{file: o.init, text: string(text)}, nil
}

// run runs the script in one transaction, unless the script has its own.
func (s script) run(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.PgConn().Exec(ctx, s.text).ReadAll()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	where := s.file
	if text := []rune(s.text); pg.Position > 0 && int(pg.Position) <= len(text) {
		where = fmt.Sprintf("%s:%d", s.file, 1+strings.Count(string(text[:pg.Position-1]), "\n"))
	}
	hint := ""
	if pg.Code == pgerrcode.SyntaxError && strings.Contains(s.text, "\\") {
		hint = "; commands of psql, such as \\copy or \\connect, are not SQL and don't work here"
	}
	return usagef("%s: %s (SQLSTATE %s)%s", where, pg.Message, pg.Code, hint)
}

// devDatabase connects to the database. It creates it and its tables if the server is new.
func devDatabase(ctx context.Context, server *localpg.Server, tables script) (*pgx.Conn, error) {
	admin, err := session.Open(ctx, server.URL("postgres"))
	if err != nil {
		return nil, explain(err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	_, err = admin.Exec(ctx, "create database "+devDatabaseName)
	kept := pg.IsState(err, pgerrcode.DuplicateDatabase)
	if err != nil && !kept {
		return nil, fmt.Errorf("create the database %s: %w", devDatabaseName, err)
	}
	conn, err := session.Open(ctx, server.URL(devDatabaseName))
	if err != nil {
		return nil, explain(err)
	}
	if kept && !tables.always {
		return conn, nil
	}
	if err = tables.run(ctx, conn); err == nil {
		return conn, nil
	}
	err = errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	if !kept { // the corrected script runs at the next start
		_, dropErr := admin.Exec(context.WithoutCancel(ctx), "drop database "+devDatabaseName)
		err = errors.Join(err, dropErr)
	}
	return nil, err
}
