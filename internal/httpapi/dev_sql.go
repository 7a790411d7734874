package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/webapi"
)

// devSQL is what came of SQL.
type devSQL struct {
	Results    []*devResult `json:"results"` // one for each statement that has ended
	Notices    []string     `json:"notices"`
	Error      *devSQLError `json:"error"` // null: all statements have succeeded
	DurationMS float64      `json:"duration_ms"`
	// RolledBack says that the SQL has left a transaction open, which was rolled back.
	RolledBack bool `json:"rolled_back,omitempty"`
}

type devResult struct {
	Tag       string      `json:"tag"` // such as INSERT 0 1
	Columns   []devColumn `json:"columns"`
	Rows      [][]*string `json:"rows"`                // values as text; null: NULL
	Truncated bool        `json:"truncated,omitempty"` // there were more rows, or longer values

	oids []uint32
	mods []int32
}

type devColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type devSQLError struct {
	Code     string `json:"code,omitempty"` // SQLSTATE
	Message  string `json:"message"`
	Detail   string `json:"detail,omitempty"`
	Hint     string `json:"hint,omitempty"`
	Position int    `json:"position,omitempty"` // in the SQL, in characters from 1
}

// Limits of SQL. The time of one statement is bounded by the session that Dev.Connect opens.
const (
	maxSQLRows    = 1000    // of a result
	maxSQLBytes   = 4 << 20 // of all values together
	maxSQLNotices = 100
)

// runDevSQL runs SQL on a session of its own.
func (s *Server) runDevSQL(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	var in struct {
		SQL string `json:"sql"`
	}
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	if strings.TrimSpace(in.SQL) == "" || strings.ContainsRune(in.SQL, 0) {
		return 0, nil, webapi.NewProblem(http.StatusBadRequest, "invalid", "there is no SQL to run", `send {"sql": "select * from orders"}`)
	}
	out := &devSQL{Results: []*devResult{}, Notices: []string{}}
	conn, err := s.cfg.Dev.Connect(r.Context(), func(n *pgconn.Notice) {
		if len(out.Notices) < maxSQLNotices {
			out.Notices = append(out.Notices, n.Severity+": "+n.Message)
		}
	})
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close(context.WithoutCancel(r.Context()))
	out.Notices = out.Notices[:0] // those of the connection
	began := time.Now()
	err = out.run(r.Context(), conn.PgConn(), in.SQL)
	out.DurationMS = float64(time.Since(began).Microseconds()) / 1000
	if status := conn.PgConn().TxStatus(); !conn.IsClosed() && status != 'I' {
		out.RolledBack = true
	}
	if err != nil {
		out.Error = sqlError(r.Context(), err)
	}
	return http.StatusOK, out, out.nameTypes(r.Context(), s.cfg.DB)
}

// run runs statements by the simple protocol, which returns all values as text.
func (o *devSQL) run(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	room := maxSQLBytes
	results := conn.Exec(ctx, sql)
	for results.NextResult() {
		reader := results.ResultReader()
		result := &devResult{Columns: []devColumn{}, Rows: [][]*string{}}
		for _, f := range reader.FieldDescriptions() {
			result.Columns = append(result.Columns, devColumn{Name: f.Name})
			result.oids, result.mods = append(result.oids, f.DataTypeOID), append(result.mods, f.TypeModifier)
		}
		for reader.NextRow() { // to the end, so that a statement that writes ends
			if len(result.Rows) == maxSQLRows || room <= 0 {
				result.Truncated = true
				continue
			}
			result.Rows = append(result.Rows, result.row(reader.Values(), &room))
		}
		tag, err := reader.Close()
		result.Tag = tag.String()
		if err == nil || len(result.Rows) > 0 {
			o.Results = append(o.Results, result)
		}
	}
	return results.Close()
}

// row returns a row, as far as there is room.
func (result *devResult) row(values [][]byte, room *int) []*string {
	row := make([]*string, len(values))
	for i, value := range values {
		if value == nil {
			continue
		}
		if len(value) > *room {
			value, result.Truncated = value[:max(*room, 0)], true
			for len(value) > 0 && !utf8.Valid(value) {
				value = value[:len(value)-1]
			}
		}
		*room -= len(value)
		text := strings.ToValidUTF8(string(value), "\uFFFD")
		row[i] = &text
	}
	return row
}

// nameTypes fills in the names of the columns' types.
func (o *devSQL) nameTypes(ctx context.Context, db pg.Queryer) error {
	var oids []uint32
	var mods []int32
	for _, result := range o.Results {
		oids, mods = append(oids, result.oids...), append(mods, result.mods...)
	}
	if len(oids) == 0 {
		return nil
	}
	var names []string
	err := db.QueryRow(ctx, `
select pg_catalog.array_agg(coalesce(pg_catalog.format_type(t.oid, t.mod), '') order by t.n)
  from unnest($1::pg_catalog.oid[], $2::pg_catalog.int4[]) with ordinality as t(oid, mod, n)`, oids, mods).Scan(&names)
	if err != nil {
		return fmt.Errorf("read the names of types: %w", err)
	}
	for _, result := range o.Results {
		for i := range result.Columns {
			result.Columns[i].Type, names = names[0], names[1:]
		}
	}
	return nil
}

func sqlError(ctx context.Context, err error) *devSQLError {
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e):
		return &devSQLError{Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint, Position: int(e.Position)}
	case ctx.Err() != nil:
		return &devSQLError{Message: "it took too long, and was canceled"}
	}
	return &devSQLError{Message: err.Error()}
}
