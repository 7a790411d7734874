package cli

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/session"
)

//go:embed sample.sql
var sampleTable string

// devDatabaseName is the database that dev works in.
const devDatabaseName = "app"

// tables are the scripts that create the tables of the private database.
type tables struct {
	scripts []sandbox.Script
	always  bool // run them also in a database of an earlier start
}

// devTables returns the files of --init, or the script of the sample table.
func devTables(o devOptions) (tables, error) {
	if o.file == "" {
		return tables{scripts: []sandbox.Script{{File: "the sample", Text: sampleTable}}, always: true}, nil
	}
	scripts, err := sandbox.ReadScripts(o.init...)
	if err != nil {
		return tables{}, usagef("--init: %w", err)
	}
	return tables{scripts: scripts}, nil
}

// create runs the scripts.
func (t tables) create(ctx context.Context, databaseURL string) error {
	err := sandbox.RunScripts(ctx, databaseURL, t.scripts...)
	if wrong, ok := errors.AsType[*sandbox.ScriptError](err); ok {
		return &usageError{wrong}
	}
	return explain(err)
}

// devDatabase connects to the database. It creates it and its tables if the server is new.
func devDatabase(ctx context.Context, server *localpg.Server, made tables) (*pgx.Conn, error) {
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
	if kept && !made.always {
		return conn, nil
	}
	if err = made.create(ctx, server.URL(devDatabaseName)); err == nil {
		return conn, nil
	}
	err = errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	if !kept { // the corrected script runs at the next start
		_, dropErr := admin.Exec(context.WithoutCancel(ctx), "drop database "+devDatabaseName)
		err = errors.Join(err, dropErr)
	}
	return nil, err
}
