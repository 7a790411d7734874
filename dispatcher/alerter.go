package dispatcher

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/alert"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

const (
	// alertEvery is how often it is looked for trouble to tell.
	alertEvery = 10 * time.Second
	// alertIdle is after how long without a look another instance takes over.
	alertIdle = 3 * alertEvery
	// lookJitter is by how much a look may come late without making a heartbeat late that is due then.
	lookJitter = time.Second
	// alertTimeout bounds an attempt at an alert or a heartbeat.
	alertTimeout = 10 * time.Second
)

// alerter tells people of trouble, and calls the heartbeats, if it is the turn of this instance. Its
// loop owns what it holds. Alerts do not pass through the queue that they tell of, and one that
// can't be sent is no trouble that alerts tell of, nor is it a reason to withhold a heartbeat: the
// log and the status tell of it.
type alerter struct {
	db            *database
	self          *identity
	configuration *configuration
	scheduler     *scheduler
	captures      *captures
	client        *client
	source        trigger.Source
	ill           func() bool // this instance has trouble of its own, and others should look
	log           *slog.Logger
	now           chan struct{} // in tests: has it look at once

	generation int64                // of the configuration at the last look with no alerts in it
	beats      map[string]time.Time // when heartbeats are called next, by destination
	failing    map[string]bool      // destinations that the log says can't be reached
	broken     bool                 // the log says that the look fails
}

// run looks until ctx is done.
func (a *alerter) run(ctx context.Context) {
	ticker := time.NewTicker(alertEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.look(ctx)
		case <-a.now:
			a.look(ctx)
		}
	}
}

// look finds out what there is to tell, and tells it.
func (a *alerter) look(ctx context.Context) {
	generation, settings := a.configuration.get()
	nobody := len(settings.Alerts) == 0
	if a.ill() || nobody && a.generation == generation {
		a.beats = nil
		return
	}
	found := a.receivers(settings.Alerts)
	var mine bool
	var out alert.Outcome
	within, cancel := context.WithTimeout(ctx, statementTimeout)
	err := pgx.BeginFunc(within, a.db.writes, func(tx pgx.Tx) error {
		turn, err := queue.TakeAlertTurn(within, tx, a.self.id, alertIdle)
		if err != nil || turn == nil {
			return err
		}
		mine = true
		states, err := queue.ReadAlerts(within, tx)
		if err != nil {
			return err
		}
		report, err := a.report(within, tx, turn, found.destinations, states)
		if err != nil {
			return err
		}
		out = alert.Plan(found.destinations, states, report, turn.Now.UTC())
		if err := queue.ForgetHeartbeats(within, tx, found.beating()); err != nil {
			return err
		}
		return queue.WriteAlerts(within, tx, found.shown, out.Changed, out.Gone)
	})
	cancel()
	a.toldOfLook(ctx, err)
	switch {
	case err != nil, !mine:
		a.beats = nil
		return
	case nobody:
		a.generation = generation
		return
	}
	var calls sync.WaitGroup
	for i := range out.Messages {
		calls.Go(func() { a.send(ctx, found, &out.Messages[i]) })
	}
	due := a.dueBeats(found.beats, time.Now())
	for i := range due {
		calls.Go(func() { a.beat(ctx, found, due[i].ID) })
	}
	calls.Wait()
	for id, fails := range found.outcome {
		a.toldOf(found, id, fails)
	}
}

// receivers are the destinations of alerts and the heartbeats, ready to be called.
type receivers struct {
	destinations []alert.Destination
	beats        []alert.Destination
	endpoints    map[string]*webhook.Endpoint
	shown        map[string]string // for people: the host alone, since the path may be a secret
	entries      map[string]string // which entry of the configuration it is, as several may have one host

	mu      sync.Mutex
	outcome map[string]string // why calls failed; "": they did not
}

func (a *alerter) receivers(alerts []trigger.Alert) *receivers {
	r := &receivers{endpoints: map[string]*webhook.Endpoint{}, shown: map[string]string{}, entries: map[string]string{}, outcome: map[string]string{}}
	for i, entry := range alerts {
		d := alert.Destination{ID: alertID(&entry), Alert: entry}
		var ep *webhook.Endpoint
		// The error does not matter: each call fails with it.
		if entry.Heartbeat != "" {
			ep, _ = webhook.NewHeartbeatFrom(entry.Heartbeat, alertTimeout, a.source)
			r.beats = append(r.beats, d)
		} else {
			ep, _ = webhook.NewEndpointFrom(trigger.Webhook{URL: entry.URL, Secret: entry.Secret, Timeout: trigger.Duration(alertTimeout)}, a.source)
			r.destinations = append(r.destinations, d)
		}
		r.endpoints[d.ID], r.shown[d.ID], r.entries[d.ID] = ep, ep.Origin(), fmt.Sprintf("alerts[%d]", i)
		if r.shown[d.ID] == "" {
			r.shown[d.ID] = r.entries[d.ID]
		}
	}
	return r
}

// alertID identifies an entry by where it leads.
func alertID(a *trigger.Alert) string {
	sum := sha256.Sum256([]byte(a.Heartbeat + "\x00" + a.URL + "\x00" + a.Format))
	return hex.EncodeToString(sum[:8])
}

func (r *receivers) beating() []string {
	ids := []string{}
	for i := range r.beats {
		ids = append(ids, r.beats[i].ID)
	}
	return ids
}

// came records how a call went, for the log.
func (r *receivers) came(id, failure string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failure != "" || r.outcome[id] == "" {
		r.outcome[id] = failure
	}
}

// send makes one attempt at a message.
func (a *alerter) send(ctx context.Context, r *receivers, m *alert.Message) {
	i := slices.IndexFunc(r.destinations, func(d alert.Destination) bool { return d.ID == m.Destination })
	body, err := m.Body(r.destinations[i].Format)
	var result webhook.Result
	if err == nil {
		result = a.client.Send(ctx, r.endpoints[m.Destination], &webhook.Event{ID: m.ID()}, body)
	}
	if ctx.Err() != nil {
		return // the next one sends it again
	}
	after := m.Sent()
	switch {
	case err != nil:
		after = m.Failed(err.Error(), m.At)
		r.came(m.Destination, err.Error())
	case !result.Delivered():
		after = m.Failed(reason(&result), m.At.Add(result.Duration)) // by the server's clock
		r.came(m.Destination, reason(&result))
	default:
		r.came(m.Destination, "")
		a.log.Info("sent an alert", "alert", string(m.Kind), "state", string(m.Phase), "about", m.States[0].Subject, "troubles", len(m.States), "entry", r.entries[m.Destination], "to", r.shown[m.Destination])
	}
	within, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := queue.FinishAlert(within, a.db.writes, after, m); err != nil && ctx.Err() == nil {
		a.log.Warn("can't record that an alert was sent; it may be sent again", "error", err)
	}
}

// dueBeats returns the heartbeats that are due: by the next look they would be late.
func (a *alerter) dueBeats(beats []alert.Destination, now time.Time) (due []alert.Destination) {
	next := map[string]time.Time{}
	for _, b := range beats {
		at := a.beats[b.ID]
		next[b.ID] = at
		if now.Add(alertEvery - lookJitter).Before(at) {
			continue
		}
		due = append(due, b)
		next[b.ID] = now.Add(b.Every.Std())
	}
	a.beats = next
	return due
}

// beat calls a heartbeat.
func (a *alerter) beat(ctx context.Context, r *receivers, id string) {
	result := a.client.Ping(ctx, r.endpoints[id])
	if ctx.Err() != nil {
		return
	}
	failure := ""
	if !result.Delivered() {
		failure = reason(&result)
	}
	r.came(id, failure)
	within, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := queue.RecordHeartbeat(within, a.db.writes, id, r.shown[id], failure); err != nil && ctx.Err() == nil {
		a.log.Debug("can't record how a heartbeat went", "error", err)
	}
}

// toldOf logs once that a destination can't be reached, and once that it can again.
func (a *alerter) toldOf(r *receivers, id, failure string) {
	switch {
	case failure != "" && !a.failing[id]:
		if a.failing == nil {
			a.failing = map[string]bool{}
		}
		a.failing[id] = true
		a.log.Error("can't send alerts; retrying", "entry", r.entries[id], "to", r.shown[id], "error", failure)
	case failure == "" && a.failing[id]:
		delete(a.failing, id)
		a.log.Info("alerts can be sent again", "entry", r.entries[id], "to", r.shown[id])
	}
}

// toldOfLook logs once that it can't be looked for trouble, and once that it can again.
func (a *alerter) toldOfLook(ctx context.Context, err error) {
	switch {
	case err != nil && !a.broken && ctx.Err() == nil:
		a.broken = true
		a.log.Error("can't look for trouble to tell; retrying", "in", alertEvery, "error", queue.ExplainHidden(err))
	case err == nil && a.broken:
		a.broken = false
		a.log.Info("it is looked for trouble to tell again")
	}
}
