package queue

import (
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Attempt is what rowhook.invocation_log has of a request. Events that were sent together share one,
// and each has a row.
type Attempt struct {
	StartedAt time.Time
	Duration  time.Duration
	Status    int    // 0: no response
	Kind      string // webhook.Kind; "": there was a response
	Error     string
	Header    []byte // of the response, as JSON; nil: null
	Body      string // of the response
	Batch     string // webhook-id of the request, for a trigger with batches; else ""
}

// attemptsSQL inserts attempts. Its arguments are whether an earlier try may have committed, which is
// argument number n, and those of attemptColumns.
//
// What events of a request have in common comes once, with the places of the first and the last of
// them. So the response of a batch is encoded, sent, parsed and checked once.
func attemptsSQL(n int) string {
	var args []string
	for i := range 14 {
		args = append(args, fmt.Sprintf("@%02d", i), fmt.Sprintf("$%d", n+i))
	}
	const sql = `
  insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error_kind, error, response_headers, response_body, batch)
  select (@01::uuid[])[a.n], a.started_at, a.trigger_id, $6, a.duration_us, (@02::integer[])[a.n], nullif(a.status, 0), nullif(a.kind, ''), nullif(a.error, ''), a.headers, a.body, nullif(a.batch, '')
    from (select *, generate_series(first, last) as n
            from unnest(@03::integer[], @04::integer[], @05::timestamptz[], @06::integer[], @07::bigint[], @08::smallint[], @09::text[], @10::text[], @11::json[], @12::text[], @13::text[])
              as r(first, last, started_at, trigger_id, duration_us, status, kind, error, headers, body, batch)) a
   where not @00 or (@01::uuid[])[a.n] in (select id from settled)`
	return strings.NewReplacer(args...).Replace(sql)
}

// attemptColumns are attempts as Postgres arrays.
type attemptColumns struct {
	shared  *Attempt // the latest
	trigger int32    // of it

	// One element for each event.
	events  []pgtype.UUID
	numbers []int32

	// One element for each request.
	first, last []int32 // its events, from 1
	started     []time.Time
	triggers    []int32
	durations   []int64
	statuses    []int16
	kinds       []string
	errors      []string
	headers     []pgtype.Text
	bodies      []string
	batches     []string
}

func (c *attemptColumns) add(s *Settlement) {
	c.events = append(c.events, pgtype.UUID{Bytes: s.ID, Valid: true})
	c.numbers = append(c.numbers, s.Tries)
	n := int32(len(c.events))
	a := s.Attempt
	if c.shared == a && c.trigger == s.Trigger {
		c.last[len(c.last)-1] = n
		return
	}
	c.shared, c.trigger = a, s.Trigger
	c.first, c.last = append(c.first, n), append(c.last, n)
	c.started = append(c.started, a.StartedAt)
	c.triggers = append(c.triggers, s.Trigger)
	c.durations = append(c.durations, a.Duration.Microseconds())
	c.statuses = append(c.statuses, int16(a.Status))
	c.kinds = append(c.kinds, a.Kind)
	c.errors = append(c.errors, a.Error)
	c.headers = append(c.headers, pgtype.Text{String: string(a.Header), Valid: a.Header != nil})
	c.bodies = append(c.bodies, a.Body)
	c.batches = append(c.batches, a.Batch)
}

// args are the arguments of attemptsSQL.
func (c *attemptColumns) args(mayHaveCommitted bool) []any {
	return []any{mayHaveCommitted, c.events, c.numbers, c.first, c.last, c.started, c.triggers, c.durations, c.statuses, c.kinds, c.errors, c.headers, c.bodies, c.batches}
}
