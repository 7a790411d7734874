package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// diagnosis shows which events, claims and sessions wait for what, and what the receiver and the
// dispatchers know of them. It ends the dispatchers, unless they were broken on purpose.
func (l *lab) diagnosis(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopPatience)
	defer cancel()
	var b strings.Builder
	for _, q := range []struct{ title, sql string }{
		{"owed", `select format('%s %s: tries %s, claimed by %s, due in %s, lane %s of %s', t.name, e.id, e.tries, e.claimed_by,
		                    case when e.lane is null then e.due_at else e.due_at - interval '1752000 hours' end - clock_timestamp(), e.lane, l.owner)
		            from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id
		            left join rowhook.lane l on l.trigger_id = e.trigger_id and l.lane = e.lane order by e.due_at limit 8`},
		{"instances", "select format('%s %s listens %s, seen %s ago', id, name, listens, clock_timestamp() - seen_at) from rowhook.instance order by id"},
		{"instance locks", "select objid::text from pg_locks where locktype = 'advisory' and objsubid = 2"},
		{"doorbell", "select coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), 1)::text"},
		{"sessions", "select format('%s %s %s %s', application_name, state, coalesce(wait_event, ''), left(translate(query, E'\\n', ' '), 60)) from pg_stat_activity where usename = '" + role + "'"},
	} {
		fmt.Fprintf(&b, "  %s:\n", q.title)
		rows, err := l.admin.Query(ctx, q.sql)
		if err == nil {
			var lines []string
			if lines, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
				for _, line := range lines {
					fmt.Fprintf(&b, "    %s\n", line)
				}
			}
		}
		if err != nil {
			fmt.Fprintf(&b, "    %v\n", err)
		}
	}
	l.receiver.recount(ctx, l, &b)
	for _, s := range l.slots {
		l.believes(ctx, s, &b)
	}
	return b.String()
}

// recount says what the receiver knows of the events that are owed.
func (r *receiver) recount(ctx context.Context, l *lab, b *strings.Builder) {
	b.WriteString("  the receiver:\n")
	rows, err := l.admin.Query(ctx, "select id from rowhook.event_log order by due_at limit 8")
	if err == nil {
		var owed []uuid.UUID
		if owed, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, id := range owed {
				fmt.Fprintf(b, "    %s: %s\n", id, r.events[id])
			}
			return
		}
	}
	fmt.Fprintf(b, "    %v\n", err)
}

// telling are the beginnings of the metrics that say what a dispatcher believes.
var telling = []string{
	"rowhook_attempts_in_flight", "rowhook_events_queued", "rowhook_blocked_keys", "rowhook_settling", "rowhook_claiming", "rowhook_history_written",
	"rowhook_endpoint_failing", "rowhook_listening", "rowhook_database_up", "rowhook_database_errors_total",
}

// believes says what a dispatcher believes, by its metrics, its last log lines, and its goroutines.
func (l *lab) believes(ctx context.Context, s *slot, b *strings.Builder) {
	c := s.running()
	if c == nil {
		fmt.Fprintf(b, "  %s is down\n", s.name())
		return
	}
	fmt.Fprintf(b, "  %s%s\n", s.name(), c.Log())
	metrics, err := get(ctx, s.metrics)
	if err != nil {
		fmt.Fprintf(b, "    %v\n", err)
	}
	for line := range strings.Lines(metrics) {
		if !strings.HasSuffix(line, " 0\n") && slices.ContainsFunc(telling, func(t string) bool { return strings.HasPrefix(line, t) }) {
			fmt.Fprintf(b, "    %s", line)
		}
	}
	if l.opt.broken != "" {
		return
	}
	s.take()
	for line := range strings.Lines(c.Stacks("github.com/rowhook/rowhook", stopPatience)) {
		fmt.Fprintf(b, "    %s", line)
	}
	b.WriteString("\n")
}

// get reads the body of a response.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("ask for metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for metrics: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("read metrics: %w", err)
	}
	return string(body), nil
}
