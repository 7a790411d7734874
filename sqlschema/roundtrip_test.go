package sqlschema_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// roundTrips counts the statements for which a session waits.
type roundTrips int

// TraceQueryStart counts.
func (n *roundTrips) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	*n++
	return ctx
}

// TraceQueryEnd does nothing.
func (*roundTrips) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestAnApplyToManyTablesWaitsForFewAnswersOfEach has 500 tables in mind, where each answer counts.
func TestAnApplyToManyTablesWaitsForFewAnswersOfEach(t *testing.T) {
	t.Parallel()
	for name, with := range map[string][]func(*trigger.Spec){
		"as they are":      nil,
		"chosen columns":   {payload("id", "v")},
		"in order":         {orderBy()},
		"with a when":      {when("true")},
		"of replication":   {onReplication},
		"numbers as texts": {func(s *trigger.Spec) { s.Payload.Numbers = trigger.NumbersText }},
		"at commit":        {func(s *trigger.Spec) { s.At = trigger.AtCommit }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "select 1")
			config := w.conn.Config().Copy()
			var n roundTrips
			config.Tracer = &n
			conn, err := pgx.ConnectConfig(t.Context(), config)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) })
			counts := map[string][]int{}
			for _, tables := range []int{2, 12} { // the first ones are prepared, too
				w.do(t, fmt.Sprintf("create schema s%[1]d; do $$ begin for i in 1..%[1]d loop execute format('create table s%[1]d.t%%s (id int primary key, v text, w int)', i); end loop; end $$", tables))
				spec := many("w", []string{fmt.Sprintf("s%d.*", tables)}, with...)
				for _, round := range []string{"first", "second"} {
					n = 0
					_, err := sqlschema.Apply(t.Context(), conn, []trigger.Spec{spec}, trigger.DefaultSettings(), quiet())
					require.NoError(t, err)
					counts[round] = append(counts[round], int(n))
				}
				_, err := sqlschema.Apply(t.Context(), conn, nil, trigger.DefaultSettings(), quiet())
				require.NoError(t, err)
			}
			require.LessOrEqual(t, counts["first"][1]-counts["first"][0], 10*7, "at most seven for each further table")
			require.Equal(t, counts["second"][0], counts["second"][1], "what is applied is found by the same number of queries")
		})
	}
}
