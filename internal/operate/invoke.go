package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// Invoke records a MANUAL event with this payload, and returns its id. The payload is any JSON; it arrives as "new". Where the
// trigger does not say manual: true, it is refused.
func Invoke(ctx context.Context, db DB, trigger string, payload json.RawMessage) (id string, err error) {
	if !json.Valid(payload) || !utf8.Valid(payload) {
		return "", problem(ErrInvalid, `write JSON, such as {"id": 7}, or "text" with its quotes`, "the payload is no JSON")
	}
	err = db.QueryRow(ctx, "select rowhook.emit($1, $2::text::json)::text", trigger, string(payload)).Scan(&id)
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return id, nil
	case !errors.As(err, &pg):
	case pg.Code == "42704" && pg.Hint != "", isNoText(err): // undefined_object, raised by rowhook.emit; or a name that none can have
		ts, terr := readTriggers(ctx, db)
		if terr != nil {
			return "", terr
		}
		if _, terr = ts.active(trigger); terr != nil {
			return "", terr
		}
	case pg.Code == "42501" && pg.Hint != "": // insufficient_privilege, raised by rowhook.emit
		return "", problem(ErrRefused, "add \"manual: true\" under its \"on\" in rowhook.yaml and apply", "the trigger %q takes no manual events", trigger)
	}
	return "", fmt.Errorf("record a manual event: %w", err)
}
