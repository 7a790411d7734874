package dispatcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
)

// A program that delivers events beside its own work, until it is interrupted. The schema and the
// triggers exist already: sqlschema.Migrate and sqlschema.Apply, or "rowhook apply", have made
// them.
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

// An Observer counts and traces. Several of them are independent of each other. Their functions are
// called on the dispatcher's goroutines, several at once, so they must be quick.
func ExampleObserver() {
	var delivered, dead, failing atomic.Int64
	metrics := dispatcher.Observer{
		Attempted: func(a dispatcher.Attempt) {
			switch a.Outcome {
			case dispatcher.Delivered:
				delivered.Add(1)
			case dispatcher.Dead:
				dead.Add(1)
			}
		},
		Failed: func(purpose string, err error) { failing.Add(1) },
	}
	// Attempting adds a header to each request, and is told how the attempt ended.
	tracing := dispatcher.Observer{
		Attempting: func(e *dispatcher.Event, number int) (http.Header, func(dispatcher.Attempt)) {
			began := time.Now()
			header := http.Header{"X-Attempt": {fmt.Sprint(number)}}
			return header, func(a dispatcher.Attempt) {
				fmt.Println(a.Event.Trigger, a.Endpoint, a.Result.Status, a.Result.Err, time.Since(began))
			}
		},
	}
	d, err := dispatcher.New(dispatcher.Config{
		DatabaseURL: os.Getenv("DATABASE_URL"),
		Observers:   []dispatcher.Observer{metrics, tracing},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := d.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
}

// Stats says for a health check whether the dispatcher works. It asks the database nothing.
func ExampleDispatcher_Stats() {
	d, err := dispatcher.New(dispatcher.Config{DatabaseURL: os.Getenv("DATABASE_URL")})
	if err != nil {
		fmt.Println(err)
		return
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		stats := d.Stats()
		switch {
		case !stats.Started:
			http.Error(w, "not connected yet", http.StatusServiceUnavailable)
		case stats.Claiming != "":
			http.Error(w, "can't claim events: "+stats.Claiming, http.StatusServiceUnavailable)
		case stats.Settling != "":
			http.Error(w, "can't record outcomes: "+stats.Settling, http.StatusServiceUnavailable)
		}
		for _, t := range stats.Triggers {
			fmt.Fprintln(w, t.Name, t.InFlight, "in flight,", t.Queued, "claimed and waiting")
			if t.Unable != "" {
				fmt.Fprintln(w, "  can't be sent:", t.Unable)
			}
		}
	})
	if err := d.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
}

// The first signal stops claiming and waits for the attempts in flight, at most GracePeriod. A
// second one gives these attempts up. Their events are sent again later.
func ExampleDispatcher_Abort() {
	d, err := dispatcher.New(dispatcher.Config{
		DatabaseURL: os.Getenv("DATABASE_URL"),
		GracePeriod: 30 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		<-signals
		stop()
		<-signals
		d.Abort()
	}()
	if err := d.Run(ctx); err != nil {
		fmt.Println(err)
	}
}
