package dispatcher

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/alert"
	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/webhook"
)

// deadQuiet is for how long no event of a trigger has become a dead letter when that is over.
const deadQuiet = 10 * time.Minute

// namedTriggers is how many triggers of a host the facts name.
const namedTriggers = 20

// subject is a trigger as alerts name it.
type subject struct {
	id             int32
	name           string
	endpoint, host string // for people, and scheme://host:port; "": not known
	paused         bool
	masked         bool // it masks some of its data, perhaps of its key
}

// subjects lists the triggers by id.
func (s *scheduler) subjects() map[int32]subject {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[int32]subject, len(s.lanes))
	for id, l := range s.lanes {
		if l.gone {
			continue
		}
		w := subject{id: id, name: l.trigger.Spec.Name, paused: l.trigger.Paused, masked: len(l.trigger.Spec.Payload.Mask) > 0}
		if l.endpoint != nil {
			w.endpoint, w.host = l.endpoint.String(), l.endpoint.Origin()
		}
		all[id] = w
	}
	return all
}

func (w *subject) facts(reason, remedy string, counts map[string]int64) alert.Facts {
	return alert.Facts{Triggers: []string{w.name}, Endpoint: w.endpoint, Host: w.host, Reason: reason, Remedy: remedy, Counts: counts}
}

// hush returns what may be told of a failure, which may have been recorded before the mask.
func (w *subject) hush(reason string) string {
	if !w.masked {
		return reason
	}
	return webhook.Result{Err: reason}.Masked().Err
}

// report reads what is wrong. What no destination wants to know is not looked for.
func (a *alerter) report(ctx context.Context, tx pgx.Tx, turn *queue.AlertTurn, to []alert.Destination, states []alert.State) (r alert.Report, err error) {
	triggers := a.scheduler.subjects()
	r.Unknown = map[alert.Kind]bool{}
	if wanted(to, alert.Failing) || wanted(to, alert.Backlog) { // a backlog of what fails is no news
		if err := a.failures(ctx, tx, triggers, states, &r); err != nil {
			return r, err
		}
	}
	if wanted(to, alert.Dead) {
		if err := a.deaths(ctx, tx, triggers, turn, states, &r); err != nil {
			return r, err
		}
	}
	if wanted(to, alert.Paused) {
		if err := a.pauses(ctx, tx, triggers, &r); err != nil {
			return r, err
		}
	}
	if wanted(to, alert.Backlog) {
		if err := a.backlogs(ctx, tx, triggers, turn, to, &r); err != nil {
			return r, err
		}
	}
	faults, looked := a.captures.known()
	r.Unknown[alert.Uncaptured] = !looked
	for _, f := range faults {
		r.Troubles = append(r.Troubles, alert.Trouble{
			Key: alert.Key{Kind: alert.Uncaptured, Subject: f.Trigger}, Since: begunAt(states, alert.Uncaptured, f.Trigger, turn.Now),
			Facts: alert.Facts{Triggers: []string{f.Trigger}, Reason: f.Problem, Remedy: f.Remedy},
		})
	}
	for i := range r.Troubles {
		r.Troubles[i].Remedy = hint.Of(a.scheduler.source, r.Troubles[i].Remedy)
	}
	return r, nil
}

// wanted reports whether a destination wants to know of the beginning or the end of a kind.
func wanted(to []alert.Destination, k alert.Kind) bool {
	return slices.ContainsFunc(to, func(d alert.Destination) bool { return d.Wants(k) })
}

// begunAt is when a trouble began, as it was recorded, or now.
func begunAt(states []alert.State, k alert.Kind, subject string, now time.Time) time.Time {
	at := now
	for i := range states {
		if s := &states[i]; s.Kind == k && s.Subject == subject && s.Active && s.BegunAt.Before(at) {
			at = s.BegunAt
		}
	}
	return at.UTC()
}

func (a *alerter) failures(ctx context.Context, tx pgx.Tx, triggers map[int32]subject, states []alert.State, r *alert.Report) error {
	found, err := queue.ReadFailing(ctx, tx)
	if err != nil {
		return err
	}
	const remedy = "Look at the receiver. Its events wait and are sent when it answers again: rowhook status, rowhook events list --state retrying"
	for _, f := range found {
		t := alert.Trouble{
			Key: alert.Key{Kind: alert.Failing, Subject: f.Target}, Since: f.Since.UTC(),
			Facts: alert.Facts{Endpoint: f.Endpoint, Host: f.Target, Reason: f.Reason, Remedy: remedy, Counts: map[string]int64{"probes": f.Probes}, Over: f.Answered},
		}
		if f.Trigger != 0 {
			w, ok := triggers[f.Trigger]
			if !ok {
				continue
			}
			t.Subject, t.Triggers, t.Host, t.Webhook = w.name, []string{w.name}, w.host, f.Webhook
			t.Reason = w.hush(t.Reason)
		} else {
			for _, id := range f.Triggers {
				if w, ok := triggers[id]; ok {
					t.Triggers = append(t.Triggers, w.name)
				}
			}
			slices.Sort(t.Triggers)
			if n := len(t.Triggers); n > namedTriggers {
				t.Counts["triggers"], t.Triggers = int64(n), t.Triggers[:namedTriggers]
			}
		}
		r.Troubles = append(r.Troubles, t)
	}
	return unwatched(ctx, tx, states, r)
}

// unwatched adds of which endpoints it is not known whether they have recovered. Their row of
// rowhook.health was deleted because of an apply.
func unwatched(ctx context.Context, tx pgx.Tx, states []alert.State, r *alert.Report) error {
	webhooks := map[string]string{}
	for i := range states {
		s := &states[i]
		fails := slices.ContainsFunc(r.Troubles, func(t alert.Trouble) bool { return t.Key == s.Key })
		if s.Kind == alert.Failing && s.Active && s.Facts.Webhook != "" && !fails {
			webhooks[s.Subject] = s.Facts.Webhook
		}
	}
	why, err := queue.Unwatched(ctx, tx, webhooks)
	r.Unwatched = map[alert.Key]string{}
	for name, reason := range why {
		r.Unwatched[alert.Key{Kind: alert.Failing, Subject: name}] = reason
	}
	return err
}

func (a *alerter) deaths(ctx context.Context, tx pgx.Tx, triggers map[int32]subject, turn *queue.AlertTurn, states []alert.State, r *alert.Report) error {
	// After a time without a look all that has died meanwhile is news.
	from := turn.Now.Add(-deadQuiet)
	if last := turn.Last.Add(-time.Minute); !turn.Last.IsZero() && last.Before(from) {
		from = last
	}
	var ids []int32
	var after []time.Time
	for id, w := range triggers {
		ids, after = append(ids, id), append(after, begunAt(states, alert.Dead, w.name, from))
	}
	found, err := queue.ReadDeaths(ctx, tx, ids, after)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Newest.Before(from) {
			continue
		}
		w := triggers[f.Trigger]
		remedy := fmt.Sprintf("Look at them: rowhook events list --state dead --trigger %s. Then rowhook redeliver or rowhook discard", w.name)
		r.Troubles = append(r.Troubles, alert.Trouble{
			Key: alert.Key{Kind: alert.Dead, Subject: w.name}, Since: f.Since.UTC(), Facts: w.facts(w.hush(f.Reason), remedy, map[string]int64{"dead": f.Count}),
		})
	}
	return deadLeft(ctx, tx, triggers, states, r)
}

// deadLeft adds which dead letters are left of triggers that were told to have some and have no new
// ones.
func deadLeft(ctx context.Context, tx pgx.Tx, triggers map[int32]subject, states []alert.State, r *alert.Report) error {
	var ids []int32
	r.Left = map[alert.Key]alert.Left{}
	for id, w := range triggers {
		key := alert.Key{Kind: alert.Dead, Subject: w.name}
		active := slices.ContainsFunc(states, func(s alert.State) bool { return s.Key == key && s.Active })
		if active && !slices.ContainsFunc(r.Troubles, func(t alert.Trouble) bool { return t.Key == key }) {
			ids, r.Left[key] = append(ids, id), alert.Left{}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	left, err := queue.ReadDeadLeft(ctx, tx, ids)
	for _, l := range left {
		r.Left[alert.Key{Kind: alert.Dead, Subject: triggers[l.Trigger].name}] = alert.Left{Count: l.Count, Last: l.Newest.UTC()}
	}
	return err
}

// pauses reports the triggers that an answer of their receiver has paused. Whoever pauses one by hand
// knows.
func (a *alerter) pauses(ctx context.Context, tx pgx.Tx, triggers map[int32]subject, r *alert.Report) error {
	found, err := queue.ReadPauses(ctx, tx)
	if err != nil {
		return err
	}
	for id, p := range found.Triggers {
		w, ok := triggers[id]
		if !ok || p.Status == 0 {
			continue
		}
		remedy := fmt.Sprintf("Its events wait. Correct the webhook or the receiver, then: rowhook resume %s", w.name)
		r.Troubles = append(r.Troubles, alert.Trouble{
			Key: alert.Key{Kind: alert.Paused, Subject: w.name}, Since: p.At.UTC(), Facts: w.facts(p.Reason, remedy, nil),
		})
	}
	return nil
}

func (a *alerter) backlogs(ctx context.Context, tx pgx.Tx, triggers map[int32]subject, turn *queue.AlertTurn, to []alert.Destination, r *alert.Report) error {
	var ids []int32
	for id, w := range triggers {
		if !w.paused { // whoever paused it knows
			ids = append(ids, id)
		}
	}
	least := time.Duration(1<<63 - 1)
	for i := range to {
		if to[i].Wants(alert.Backlog) {
			least = min(least, to[i].Backlog.OlderThan.Std()/2) // where a backlog ends
		}
	}
	found, err := queue.ReadOverdue(ctx, tx, ids, least)
	if err != nil {
		return err
	}
	ids = ids[:0]
	for _, f := range found {
		ids = append(ids, f.Trigger)
	}
	holding := map[int32]queue.HoldingDeadLetter{}
	if len(ids) > 0 {
		all, err := queue.ReadHoldingDeadLetters(ctx, tx, ids)
		if err != nil {
			return err
		}
		for _, h := range all {
			holding[h.Trigger] = h
		}
	}
	for _, f := range found {
		w := triggers[f.Trigger]
		waits := turn.Now.Sub(f.Since)
		reason, remedy := "", fmt.Sprintf("More events are recorded than are delivered, or %s is slow: raise concurrency, or start another dispatcher. See rowhook status", w.name)
		if h, ok := holding[f.Trigger]; ok {
			key := h.Key
			if w.masked {
				key = mask.JSON
			}
			reason = fmt.Sprintf("a dead letter holds the key %s since %s", key, h.Since.UTC().Format("2006-01-02 15:04:05 MST"))
			remedy = fmt.Sprintf("To send it again and go on: rowhook redeliver %s; to go on without it: rowhook discard %s. All such keys: rowhook status", h.ID, h.ID)
		}
		r.Troubles = append(r.Troubles, alert.Trouble{
			Key: alert.Key{Kind: alert.Backlog, Subject: w.name}, Since: f.Since.UTC(), Waits: waits,
			Facts: w.facts(reason, remedy, map[string]int64{"waiting": f.Waiting, "oldest_seconds": int64(waits.Seconds())}),
		})
	}
	return nil
}
