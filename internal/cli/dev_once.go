package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/trigger"
)

// arrivalTimeout is how long dev --once waits for one delivery.
const arrivalTimeout = 10 * time.Second

// step is a change of the sample table, and the rows that its delivery must hold byte for byte. $id
// stands for the id of the row.
type step struct{ op, sql, before, after string }

// onceSteps returns changes with values that break if a number passes through a float, or a time
// through the time zone of a session.
func onceSteps() []step {
	const placed = `{"id":$id,"customer":"Ada Lovelace","amount":1.10,"reference":50755254975729665,"status":"placed","placed_at":"2026-02-28T12:00:00+00:00"}`
	const paid = `{"id":$id,"customer":"Ada Lovelace","amount":1.10,"reference":50755254975729665,"status":"paid","placed_at":"2026-02-28T12:00:00+00:00"}`
	return []step{
		{"INSERT", "insert into orders (customer, amount, reference, placed_at)\n" +
			"  values ('Ada Lovelace', 1.10, 50755254975729665, '2026-02-28 12:00:00+00')", "null", placed},
		{"UPDATE", "update orders set status = 'paid' where id = $id", placed, paid},
		{"DELETE", "delete from orders where id = $id", paid, "null"},
	}
}

var rowID = regexp.MustCompile(`\$id`)

// showOnce makes the three changes one after another. It checks that each is delivered once, with
// the right body.
func (a *app) showOnce(ctx context.Context, conn *pgx.Conn, arrivals <-chan sink.Delivery) error {
	if err := drain(arrivals); err != nil {
		return err
	}
	id := "0"
	var problems []error
	for _, s := range onceSteps() {
		sql := rowID.ReplaceAllString(s.sql, id)
		fmt.Fprintf(a.stdout, "\n%s;\n", sql)
		if s.op == "INSERT" {
			if err := conn.QueryRow(ctx, sql+" returning id::text").Scan(&id); err != nil {
				return fmt.Errorf("write a row of the sample table: %w", explain(err))
			}
		} else if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("write a row of the sample table: %w", explain(err))
		}
		committed := time.Now()
		got, err := await(ctx, arrivals)
		if err != nil {
			problems = append(problems, fmt.Errorf("the delivery of the %s is missing: %w", s.op, err))
			fmt.Fprintln(a.stdout, "  nothing arrived")
			continue
		}
		fmt.Fprintf(a.stdout, "  arrived %s\n  %s\n", sinceCommit(got.ReceivedAt.Sub(committed)), got.Body)
		before, after := rowID.ReplaceAllString(s.before, id), rowID.ReplaceAllString(s.after, id)
		if err := compareBody(got.Body, s.op, before, after); err != nil {
			problems = append(problems, fmt.Errorf("the body of the %s is wrong: %w", s.op, err))
			continue
		}
		fmt.Fprintln(a.stdout, "  the body is as expected")
	}
	if err := drain(arrivals); err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	fmt.Fprintln(a.stdout, "\nThe insert, the update and the delete arrived, each once and with the right body.")
	return nil
}

// sinceCommit writes the time from the writer's commit to the arrival, both measured in this
// process. It can be negative: the server wakes the dispatcher when it answers the writer.
func sinceCommit(d time.Duration) string {
	if d < 0 {
		return milliseconds(-d) + " before the writer's commit returned"
	}
	return milliseconds(d) + " after the commit"
}

func await(ctx context.Context, arrivals <-chan sink.Delivery) (sink.Delivery, error) {
	timer := time.NewTimer(arrivalTimeout)
	defer timer.Stop()
	select {
	case got := <-arrivals:
		return got, nil
	case <-timer.C:
		return sink.Delivery{}, fmt.Errorf("it did not arrive within %s after the commit", arrivalTimeout)
	case <-ctx.Done():
		return sink.Delivery{}, context.Cause(ctx)
	}
}

// drain returns an error for an unexpected delivery.
func drain(arrivals <-chan sink.Delivery) error {
	select {
	case got := <-arrivals:
		return fmt.Errorf("an unexpected delivery arrived: %s", got.Body)
	default:
		return nil
	}
}

var uuid7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// compareBody compares a body byte for byte with the expected one for a change of the sample table.
// Id and time differ for each event: they must be a UUID version 7, and within the last minute.
func compareBody(body []byte, op, before, after string) error {
	var own struct {
		ID        string `json:"id"`
		CreatedAt string `json:"created_at"`
	}
	if err := json.Unmarshal(body, &own); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	if !uuid7.MatchString(own.ID) {
		return fmt.Errorf("its id %q is not a UUID version 7", own.ID)
	}
	at, err := time.Parse(time.RFC3339Nano, own.CreatedAt)
	if err != nil || time.Since(at).Abs() > time.Minute {
		return fmt.Errorf("its created_at %q is not within the last minute", own.CreatedAt)
	}
	want := fmt.Sprintf(`{"id":%q,"created_at":%q,"table":{"schema":"public","name":"orders"},"trigger":{"name":"order_changed"},`+
		`"event":{"op":%q,"data":{"old":%s,"new":%s},"session_variables":null,"trace_context":null},`+
		`"delivery_info":{"current_retry":0,"max_retries":%d}}`, own.ID, own.CreatedAt, op, before, after, trigger.DefaultRetryLimit)
	if string(body) != want {
		return fmt.Errorf("expected %s", want)
	}
	return nil
}
