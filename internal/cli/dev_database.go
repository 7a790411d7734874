package cli

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

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

// database connects to the database. It creates it and its tables if the server is new.
func (r *devRun) database(ctx context.Context) (*pgx.Conn, error) {
	admin, err := session.Open(ctx, r.server.URL("postgres"))
	if err != nil {
		return nil, explain(err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	_, err = admin.Exec(ctx, "create database "+devDatabaseName)
	kept := pg.IsState(err, pgerrcode.DuplicateDatabase)
	if err != nil && !kept {
		return nil, fmt.Errorf("create the database %s: %w", devDatabaseName, err)
	}
	if !kept || r.tables.always {
		if err := r.tables.create(ctx, r.server.URL(devDatabaseName)); err != nil {
			if !kept { // the corrected script runs at the next start
				_, dropErr := admin.Exec(context.WithoutCancel(ctx), "drop database "+devDatabaseName)
				err = errors.Join(err, dropErr)
			}
			return nil, err
		}
	}
	if err := r.runMigrations(ctx); err != nil {
		return nil, err
	}
	conn, err := session.Open(ctx, r.server.URL(devDatabaseName))
	return conn, explain(err)
}
