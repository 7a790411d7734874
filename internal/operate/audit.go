package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
)

// AuditEntry is a row of rowhook.audit: who steered what.
type AuditEntry struct {
	ID     int64           `json:"id"`
	At     time.Time       `json:"at"`
	Role   string          `json:"role"` // of the database
	Who    string          `json:"who"`  // user and host of the program, or which token of the HTTP interface
	Client string          `json:"client,omitempty"`
	Action string          `json:"action"`
	Target []string        `json:"target"` // triggers; empty: the whole installation
	Detail json.RawMessage `json:"detail"`
}

// AuditOptions choose from the audit. What is set must all hold.
type AuditOptions struct {
	Since, Until time.Time
	Actions      []string // any of these
	Triggers     []string // named as targets; any of these
	Limit        int      // at most so many; 0: DefaultLimit, at most MaxLimit
	Before       int64    // older than this number: Next of the page before
}

// AuditPage is a part of the audit, latest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	// Next is where the next page begins; 0: there is none.
	Next int64 `json:"next,omitempty"`
}

// Audited lists the actions that are recorded.
func Audited() []string {
	return []string{"pause", "resume", "redeliver", "discard", "backfill", "invoke", "apply", "migrate"}
}

// Audit reads who did what, latest first.
func Audit(ctx context.Context, db DB, o AuditOptions) (*AuditPage, error) {
	if o.Limit < 0 || o.Limit > MaxLimit {
		return nil, problem(ErrInvalid, fmt.Sprintf("ask for 1 to %d, and go on with the cursor", MaxLimit), "a page of %d lines is not to be had", o.Limit)
	}
	limit := cmp.Or(o.Limit, DefaultLimit)
	page := &AuditPage{Entries: []AuditEntry{}}
	err := read(ctx, db, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, "select to_regclass('rowhook.audit') is not null").Scan(&exists); err != nil {
			return fmt.Errorf("look for rowhook.audit: %w", err)
		}
		if !exists {
			return problem(ErrRefused, "run \"rowhook migrate\" first", "the schema rowhook of this database keeps no audit yet")
		}
		var rows []AuditEntry
		err := escaping(ctx, tx, func(write func(string) string) (err error) {
			rows, err = collect[AuditEntry](ctx, tx, `
select id, at, `+write("role")+` as role, `+write("who")+` as who, client, action, target, detail
  from rowhook.audit
 where ($1::bigint = 0 or id < $1) and ($2::timestamptz is null or at >= $2) and ($3::timestamptz is null or at < $3)
   and ($4::text[] is null or action = any($4)) and ($5::text[] is null or target && $5)
 order by id desc limit $6`, o.Before, moment(o.Since), moment(o.Until), o.Actions, o.Triggers, limit+1)
			return err
		})
		if err != nil {
			return fmt.Errorf("read the audit: %w", err)
		}
		page.Entries = append(page.Entries, rows...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(page.Entries) > limit {
		page.Entries = page.Entries[:limit]
		page.Next = page.Entries[limit-1].ID
	}
	return page, nil
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// amendTimeout bounds how long the end of an action is waited for that was cancelled.
const amendTimeout = 5 * time.Second

// record notes that a change of many events begins. The function that it returns notes how it ended, also where ctx has ended.
func record(ctx context.Context, db DB, d queue.AuditEntry) (ended func(result map[string]any, err error) error, err error) {
	id, err := queue.RecordAudit(ctx, db, d)
	if err != nil {
		return nil, err
	}
	return func(result map[string]any, err error) error {
		detail := map[string]any{}
		for _, m := range []map[string]any{d.Detail, result} {
			for k, v := range m {
				detail[k] = v
			}
		}
		if err != nil {
			detail["error"] = err.Error()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), amendTimeout)
		defer cancel()
		// The connection may have ended with ctx: what was asked for is recorded all the same.
		if aerr := queue.AmendAudit(ctx, db, id, detail); err == nil && aerr != nil && !errors.Is(aerr, context.DeadlineExceeded) {
			return aerr
		}
		return err
	}, nil
}
