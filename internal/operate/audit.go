package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// AuditEntry is a row of rowhook.audit: one change of the installation, and who made it.
type AuditEntry struct {
	ID     int64           `json:"id"`
	At     time.Time       `json:"at"`
	Role   string          `json:"role"` // the database role
	Who    string          `json:"who"`  // user and host of the program, or the HTTP token's name
	Client string          `json:"client,omitempty"`
	Action string          `json:"action"`
	Target []string        `json:"target"` // names of triggers; empty: the whole installation
	Detail json.RawMessage `json:"detail"`
}

// AuditOptions choose entries of the audit. An entry must meet every field that is set.
type AuditOptions struct {
	Since, Until time.Time
	Actions      []string // any of these
	Triggers     []string // any of these is a target
	Limit        int      // entries per page, at most MaxLimit; 0: DefaultLimit
	Before       int64    // only entries with a smaller ID; pass Next of the previous page; 0: all
}

// AuditPage is a page of the audit, latest entry first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	// Next is the Before of the next page; 0: this is the last page.
	Next int64 `json:"next,omitempty"`
}

// Audited returns the actions that the audit records.
func Audited() []string {
	return []string{"pause", "resume", "redeliver", "retry", "discard", "backfill", "replay", "invoke", "cancel", "erase", "cutover", "apply", "migrate"}
}

// Audit returns a page of the audit, latest entry first. A Limit outside 0 to MaxLimit is
// ErrInvalid.
func Audit(ctx context.Context, db DB, o AuditOptions) (*AuditPage, error) {
	if o.Limit < 0 || o.Limit > MaxLimit {
		return nil, problem(ErrInvalid, "use the cursor for more", "limit must be 1 to %d, got %d", MaxLimit, o.Limit)
	}
	limit := cmp.Or(o.Limit, DefaultLimit)
	page := &AuditPage{Entries: []AuditEntry{}}
	err := read(ctx, db, func(tx pgx.Tx) error {
		var rows []AuditEntry
		err := escaping(ctx, tx, func(write func(string) string) (err error) {
			rows, err = pg.Collect[AuditEntry](ctx, tx, `
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

// amendTimeout bounds the update of an audit entry after its action has ended or was cancelled.
const amendTimeout = 5 * time.Second

// record writes an audit entry when a change of many events begins. The function it returns adds
// the result, even after ctx is done.
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
		// The connection may have ended with ctx. The entry exists then, without its result.
		if aerr := queue.AmendAudit(ctx, db, id, detail); err == nil && aerr != nil && !errors.Is(aerr, context.DeadlineExceeded) {
			return aerr
		}
		return err
	}, nil
}
