package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/alert"
	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// OpenAlert is a trouble that a receiver of alerts is told of, and that has not ended.
type OpenAlert struct {
	Alert  string     `json:"alert"`   // failing, dead, paused, backlog or uncaptured
	About  string     `json:"about"`   // the trigger, or the host as scheme://host:port
	Since  time.Time  `json:"since"`   // when it began
	Reason string     `json:"reason"`  // as the alert says
	To     string     `json:"to"`      // the host of the receiver
	ToldAt *time.Time `json:"told_at"` // null: not told yet
	Error  string     `json:"error,omitempty"`
}

func (s *Status) readAlerts(ctx context.Context, tx pgx.Tx) error {
	type failing struct {
		Endpoint, Error string
		Heartbeat       bool
		Attempts        int64
	}
	var failures []failing
	err := escaping(ctx, tx, func(write func(string) string) (err error) {
		s.Alerts, err = pg.Collect[OpenAlert](ctx, tx, `
select kind as alert, subject as about, begun_at as since, coalesce(`+write("facts->>'reason'")+`, '') as reason, endpoint as "to",
       case when told = 'begun' then told_at end as told_at, coalesce(`+write("error")+`, '') as error
  from rowhook.alert where active and kind <> 'heartbeat' order by begun_at, kind, subject, endpoint limit 1000`)
		if err != nil {
			return err
		}
		failures, err = pg.Collect[failing](ctx, tx, `
select endpoint, kind = 'heartbeat' as heartbeat, max(attempts)::bigint as attempts, `+write("(array_agg(error))[1]")+` as error
  from rowhook.alert where error is not null group by 1, 2 order by 1, 2`)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the alerts: %w", err)
	}
	for i := range s.Alerts {
		a := &s.Alerts[i]
		if t, err := s.known.named(a.About); err == nil && a.Alert != string(alert.Uncaptured) {
			a.Reason = t.hush(a.Reason)
		}
	}
	for _, f := range failures {
		w := Warning{
			Code: "alert_not_sent", Problem: fmt.Sprintf("alerts can't be sent to %s, after %d attempts: %s", f.Endpoint, f.Attempts, f.Error),
			Remedy: "correct alerts in rowhook.yaml and apply, or set the variables of the dispatchers; \"rowhook test --alerts\" tries it",
		}
		if f.Heartbeat {
			w.Code, w.Problem = "heartbeat_not_sent", fmt.Sprintf("the heartbeat at %s can't be called, after %d attempts: %s", f.Endpoint, f.Attempts, f.Error)
		}
		s.warn(w)
	}
	return nil
}

// AlertTrial is a try of the entries of alerts.
type AlertTrial struct {
	Source  trigger.Source
	Guard   webhook.Guard // in addition to the one that was applied
	Version string        // of the program
}

// AlertTrialResult is what came of one entry.
type AlertTrialResult struct {
	Entry      int     `json:"entry"` // its place in alerts, from 0
	Kind       string  `json:"kind"`  // alert or heartbeat
	To         string  `json:"to"`    // the host; "": it is not known
	Delivered  bool    `json:"delivered"`
	Status     *int    `json:"status"` // null: there was no response
	DurationMS float64 `json:"duration_ms"`
	Error      string  `json:"error,omitempty"`
}

// TryAlerts sends a made-up alert to each URL of alerts as it was applied, and calls the heartbeats.
func TryAlerts(ctx context.Context, db DB, o AlertTrial) ([]AlertTrialResult, error) {
	var settings trigger.Settings
	err := read(ctx, db, func(tx pgx.Tx) error {
		cfg, err := queue.Load(ctx, tx)
		settings = cfg.Settings
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(settings.Alerts) == 0 {
		return nil, problem(ErrRefused, "add alerts to rowhook.yaml and apply", "there are no alerts in the configuration that was applied")
	}
	guard, err := guardWith(o.Guard, settings.Network)
	if err != nil {
		return nil, err
	}
	client := webhook.NewClient(webhook.ClientConfig{Version: o.Version, Guard: guard})
	defer client.Close()
	var out []AlertTrialResult
	for i := range settings.Alerts {
		r, err := o.try(ctx, client, &settings.Alerts[i])
		if err != nil {
			return nil, err
		}
		r.Entry = i
		out = append(out, r)
	}
	return out, nil
}

// trialTimeout is that of a dispatcher.
const trialTimeout = 10 * time.Second

func (o *AlertTrial) try(ctx context.Context, client *webhook.Client, a *trigger.Alert) (r AlertTrialResult, err error) {
	var result webhook.Result
	var ep *webhook.Endpoint
	if a.Heartbeat != "" {
		r.Kind = "heartbeat"
		ep, _ = webhook.NewHeartbeatFrom(a.Heartbeat, trialTimeout, o.Source) // Ping fails with the error
		result = client.Ping(ctx, ep)
	} else {
		r.Kind = "alert"
		now := time.Now().UTC().Truncate(time.Microsecond) // as the database's clock, by which alerts go
		m := alert.Message{Kind: alert.Failing, Phase: alert.Begun, At: now, Test: true, States: []alert.State{{
			Key: alert.Key{Kind: alert.Failing, Subject: "test"}, BegunAt: now,
			Facts: alert.Facts{Triggers: []string{"test"}, Reason: "this is a test", Remedy: "nothing to do"},
		}}}
		body, err := m.Body(a.Format)
		if err != nil {
			return r, err
		}
		ep, _ = webhook.NewEndpointFrom(trigger.Webhook{URL: a.URL, Secret: a.Secret, Timeout: trigger.Duration(trialTimeout)}, o.Source) // as above
		result = client.Send(ctx, ep, &webhook.Event{ID: m.ID()}, body)
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	r.To, r.Delivered, r.Error = ep.Origin(), result.Delivered(), result.Err
	r.DurationMS = float64(result.Duration.Round(10*time.Microsecond)) / float64(time.Millisecond)
	if result.Status != 0 {
		r.Status = &result.Status
	}
	return r, nil
}

// FailedAlerts returns an error if an entry was not delivered.
func FailedAlerts(all []AlertTrialResult) error {
	failed := 0
	for i := range all {
		if !all[i].Delivered {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return errors.New(fmt.Sprint(failed, " of ", len(all), " entries of alerts could not be reached: correct alerts in rowhook.yaml, or set the variables where the dispatcher runs"))
}

// guardWith adds the applied rules to a guard.
func guardWith(g webhook.Guard, n trigger.Network) (webhook.Guard, error) {
	deny, err := netrule.ParseAll(n.Deny)
	if err != nil {
		return g, fmt.Errorf("read rowhook.setting network: deny: %w", err)
	}
	allow, err := netrule.ParseAll(n.Allow)
	if err != nil {
		return g, fmt.Errorf("read rowhook.setting network: allow: %w", err)
	}
	return g.With(webhook.Guard{Deny: deny, Allow: allow}), nil
}
