package queue

import (
	"context"
	"fmt"

	"github.com/rowhook/rowhook/internal/pg"
)

// PausedByAnswer is what PauseByAnswer found.
type PausedByAnswer byte

// The values of a PausedByAnswer.
const (
	NowPaused    PausedByAnswer = 'P' // it has paused the trigger
	WasPaused    PausedByAnswer = 'W' // the trigger was paused already
	OtherTrigger PausedByAnswer = 'O' // somebody has resumed, changed or removed the trigger since, so nothing was done
)

// PauseByAnswer pauses a trigger whose receiver has answered with a status for which its retry says
// pause. version is Trigger.Version as of the request. A dispatcher's role may write no setting, so a
// function of the schema does it, for triggers with such a rule alone.
func PauseByAnswer(ctx context.Context, db pg.Queryer, t *Trigger, status int) (PausedByAnswer, error) {
	var found opByte
	err := db.QueryRow(ctx, `select rowhook.pause_by_answer($1, $2, $3, $4)`, t.ID, t.Version, status, "the dispatcher "+ActorOf(ctx).Name).Scan(&found)
	if err != nil {
		return 0, fmt.Errorf("pause the trigger %s: %w", t.Spec.Name, err)
	}
	return PausedByAnswer(found), nil
}
