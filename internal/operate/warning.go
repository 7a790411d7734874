package operate

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

// Warning is something that a person has to see to.
type Warning struct {
	Code    string `json:"code"`              // for programs, such as schema_is_older
	Trigger string `json:"trigger,omitempty"` // the trigger that it is about; "": none in particular
	Problem string `json:"problem"`           // what is wrong, for people
	Remedy  string `json:"remedy,omitempty"`  // what to do about it
}

// readWarnings asks for each kind of trouble. Each function appends what it finds by warn; it runs in the transaction that reads the status,
// after all else was read. An error of it is an error of the whole status, unless it is of a text that can't be read.
func (s *Status) readWarnings(ctx context.Context, tx pgx.Tx) error {
	for _, look := range []func(ctx context.Context, tx pgx.Tx) error{
		s.warnOfSchema, s.warnOfRowSecurity, s.warnOfLack, s.warnOfForeignGrants,
		s.warnOfTrouble, s.warnOfHistory,
		s.warnOfNotifications, s.warnOfDoorbell,
		s.warnOfUncaptured,
	} {
		if err := s.look(ctx, tx, look); err != nil {
			return err
		}
	}
	return nil
}

// look warns of what can't be read, instead of failing.
func (s *Status) look(ctx context.Context, tx pgx.Tx, f func(ctx context.Context, tx pgx.Tx) error) error {
	err := apart(ctx, tx, func() error { return f(ctx, tx) })
	if !pg.IsData(err) {
		return err
	}
	s.warn(Warning{
		Code: "unreadable", Problem: "a part of this status is missing, as the database has a text that can't be read: " + err.Error(),
		Remedy: "look for names and queries that are not in the encoding of the database",
	})
	return nil
}

// Warns reports that there is a warning of this code about a trigger.
func (s *Status) Warns(code, trigger string) bool {
	return slices.ContainsFunc(s.Warnings, func(w Warning) bool { return w.Code == code && w.Trigger == trigger })
}

func (s *Status) warn(w Warning) { s.Warnings = append(s.Warnings, w) }

func (s *Status) warnOfSchema(context.Context, pgx.Tx) error {
	if s.Schema.Database < s.Schema.Program {
		s.warn(Warning{
			Code: "schema_is_older", Problem: fmt.Sprintf("the schema rowhook is at version %d, and this program knows %d", s.Schema.Database, s.Schema.Program),
			Remedy: "run \"rowhook migrate\"",
		})
	}
	return nil
}

func (s *Status) warnOfRowSecurity(ctx context.Context, tx pgx.Tx) error {
	secured, err := queue.FindSecured(ctx, tx)
	if err != nil {
		return err
	}
	for i := range secured {
		s.warn(Warning{Code: "row_level_security", Problem: secured[i].Problem(), Remedy: secured[i].Remedy()})
	}
	return nil
}

// warnOfLack tells of what copies and upgrades by logical replication leave behind.
func (s *Status) warnOfLack(ctx context.Context, tx pgx.Tx) error {
	lines, err := sqlschema.Lacking(ctx, tx)
	for _, line := range lines {
		s.warn(Warning{Code: "incomplete", Problem: line, Remedy: "run \"rowhook apply\""})
	}
	return err
}

func (s *Status) warnOfForeignGrants(ctx context.Context, tx pgx.Tx) error {
	foreign, err := sqlschema.ForeignGrants(ctx, tx)
	if err != nil {
		return err
	}
	for i := range foreign {
		s.warn(Warning{Code: "foreign_grants", Problem: foreign[i].Problem(), Remedy: foreign[i].Remedy()})
	}
	return nil
}

// warnOfDoorbell tells of writers that notify for nobody, where the program could not put an end to it.
func (s *Status) warnOfDoorbell(context.Context, pgx.Tx) error {
	if s.Doorbell.State != "ringing" || slices.ContainsFunc(s.Instances, func(i Instance) bool { return i.Listens && i.Alive }) {
		return nil
	}
	s.warn(Warning{
		Code: "rings_for_nobody", Problem: "writers to watched tables notify (NOTIFY), one commit after the other, and no dispatcher is left that listens: the last one was killed",
		Remedy: "start a dispatcher, or run \"rowhook status\" in a session that may write, which silences them",
	})
	return nil
}

// Uncaptured is the code of a warning that changes of a trigger's table are not recorded.
const Uncaptured = "uncaptured"

func (s *Status) warnOfUncaptured(ctx context.Context, tx pgx.Tx) error {
	found, err := sqlschema.FindUncaptured(ctx, tx)
	if err != nil {
		return err
	}
	for _, u := range found {
		s.warn(Warning{Code: Uncaptured, Trigger: u.Trigger, Problem: u.Problem, Remedy: u.Remedy})
	}
	return nil
}
