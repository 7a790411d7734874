package operate

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

// Warning is a problem that needs a person.
type Warning struct {
	Code    string `json:"code"`              // for programs, such as schema_is_older
	Trigger string `json:"trigger,omitempty"` // the affected trigger; "": the whole installation
	Problem string `json:"problem"`           // what is wrong, for people
	Remedy  string `json:"remedy,omitempty"`  // what to do about it
}

// readWarnings runs every check. A check runs in the transaction of the status, after all else was
// read, and adds what it finds by warn. Its error fails the whole status, except that of a text
// that can't be read.
func (s *Status) readWarnings(ctx context.Context, tx pgx.Tx) error {
	for _, check := range []func(ctx context.Context, tx pgx.Tx) error{
		s.warnOfSchema, s.warnOfRowSecurity, s.warnOfLack, s.warnOfForeignGrants,
		s.warnOfTrouble, s.warnOfHistory,
		s.warnOfNotifications, s.warnOfDoorbell,
		s.warnOfUncaptured, s.warnOfCutovers, s.readAlerts,
	} {
		if err := s.orWarn(ctx, tx, check); err != nil {
			return err
		}
	}
	return nil
}

// orWarn runs f. If a text of the database can't be read, it adds a warning instead of failing.
func (s *Status) orWarn(ctx context.Context, tx pgx.Tx, f func(ctx context.Context, tx pgx.Tx) error) error {
	err := apart(ctx, tx, func() error { return f(ctx, tx) })
	if !pg.IsData(err) {
		return err
	}
	s.warn(Warning{
		Code: "unreadable", Problem: "a part of this status is missing, because a text in the database can't be read: " + err.Error(),
		Remedy: "look for names and queries that are not in the database's encoding",
	})
	return nil
}

// Warns reports whether there is a warning with this code about this trigger.
func (s *Status) Warns(code, trigger string) bool {
	return slices.ContainsFunc(s.Warnings, func(w Warning) bool { return w.Code == code && w.Trigger == trigger })
}

// NameSource has the commands of all remedies name a source.
func (s *Status) NameSource(source string) {
	for i := range s.Warnings {
		s.Warnings[i].Remedy = hint.Of(source, s.Warnings[i].Remedy)
	}
	for i := range s.Blocked {
		s.Blocked[i].Remedy = hint.Of(source, s.Blocked[i].Remedy)
	}
}

func (s *Status) warn(w Warning) { s.Warnings = append(s.Warnings, w) }

func (s *Status) warnOfSchema(context.Context, pgx.Tx) error {
	if s.Schema.Database < s.Schema.Program {
		s.warn(Warning{
			Code: "schema_is_older", Problem: sqlschema.Lag(s.Schema.Database),
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

// warnOfLack warns of parts that copies and upgrades by logical replication leave behind.
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

// warnOfDoorbell warns of writers that notify although no dispatcher listens, and that this program
// could not silence.
func (s *Status) warnOfDoorbell(context.Context, pgx.Tx) error {
	if s.Doorbell.State != "ringing" || slices.ContainsFunc(s.Instances, func(i Instance) bool { return i.Listens && i.Alive }) {
		return nil
	}
	s.warn(Warning{
		Code: "rings_for_nobody", Problem: "writers to watched tables send NOTIFY, so their commits wait for each other, but no dispatcher listens: the last one was killed",
		Remedy: "start a dispatcher, or run \"rowhook status\" in a session that may write; it silences the writers",
	})
	return nil
}

// Uncaptured is the code of the warning that changes of a trigger's table are not recorded.
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

// warnOfCutovers warns of triggers that are being moved between Hasura and Rowhook: whoever looks must
// not repair what is as it should be meanwhile.
func (s *Status) warnOfCutovers(ctx context.Context, tx pgx.Tx) error {
	moves, err := moving.Read(ctx, tx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(moves)) {
		if m := moves[name]; m.Problem() != "" {
			s.warn(Warning{Code: "cutover", Trigger: name, Problem: m.Problem(), Remedy: m.Remedy()})
		}
	}
	return nil
}
