package dispatcher_test

import (
	"context"
	"log/slog"
	"os"
	"os/signal"

	"github.com/rowhook/rowhook/dispatcher"
)

// A program that delivers events beside its own work, until it is interrupted. The schema and the triggers are there
// already, by sqlschema.Migrate and sqlschema.Apply or by "rowhook apply".
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	d, err := dispatcher.New(dispatcher.Config{
		DatabaseURL: os.Getenv("DATABASE_URL"),
		Logger:      log,
		Observers: []dispatcher.Observer{{
			Attempted: func(a dispatcher.Attempt) {
				log.Debug("attempt", "trigger", a.Event.Trigger, "status", a.Result.Status, "outcome", a.Outcome)
			},
		}},
	})
	if err != nil {
		log.Error("can't deliver", "error", err)
		return
	}
	if err := d.Run(ctx); err != nil {
		log.Error("stopped", "error", err)
	}
}
