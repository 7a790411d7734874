package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

// send starts an attempt, on a goroutine that goes on with the next event of a free slot.
func (d *Dispatcher) send(dl *delivery) {
	d.senders.Go(func() {
		for dl != nil {
			dl = d.attempt(dl)
		}
	})
}

// attempt makes one attempt and returns the event that takes its slot.
func (d *Dispatcher) attempt(dl *delivery) *delivery {
	spec, endpoint := d.scheduler.plan(dl)
	if time.Until(dl.expires) < min(endpoint.Timeout(), longestLease)+settleMargin {
		// It waited here until its lease would not last for an attempt any more.
		d.settler.add(dl, sqlschema.Settlement{Fate: sqlschema.Released})
		return d.scheduler.done(dl, 0, false)
	}
	if err := d.client.Prepare(endpoint); err != nil { // since it was claimed, the configuration or a file has changed
		d.disable(dl, err)
		return d.scheduler.done(dl, 0, false)
	}
	bad := d.interrupted(dl, spec.Retry.Limit)
	if bad == nil && dl.held > 0 {
		free, err := d.fetch(dl, min(endpoint.Timeout(), longestLease))
		defer free()
		if err != nil && !errors.As(err, &bad) {
			return d.scheduler.done(dl, 0, false)
		}
	}
	if bad == nil {
		bad = d.checkPayload(&dl.event)
	}
	ctx, ended := d.tell.attempting(d.sendCtx, &dl.event, int(dl.tries))
	var result webhook.Result
	if bad == nil {
		result = d.client.Send(ctx, endpoint, &dl.event, nil)
	} else {
		result = webhook.Result{StartedAt: time.Now(), Kind: bad.kind, Err: bad.Error(), Hopeless: bad.forGood}
	}
	next := d.scheduler.done(dl, result.Duration, bad == nil)

	number := int(dl.tries)
	what, delay := fate(spec.Retry, number, dl.event.ID, &result)
	s := sqlschema.Settlement{Fate: what, Delay: delay, Attempt: &sqlschema.Attempt{
		StartedAt: result.StartedAt, Duration: result.Duration, Status: result.Status, Kind: string(result.Kind),
		Error: result.Err, Header: result.Header, Body: string(result.Body),
	}}
	if what == sqlschema.Dead {
		s.Reason = reason(&result)
	}
	d.settler.add(dl, s)
	d.activity.add(dl, &result, what)
	d.tell.attempted(dl, endpoint, &result, what, delay, ended)
	d.report(dl, endpoint, &result, what, delay)
	return next
}

// interrupted looks at an event whose attempts were all used up and of which the last ended without an outcome: it may be what ends the
// dispatcher. It is sent alone once, so that no other event suffers, and if that does not end in order either it is a dead letter.
func (d *Dispatcher) interrupted(dl *delivery, limit int) *payloadError {
	over := int(dl.tries) - (limit + 1)
	if !dl.broken || over <= 0 {
		return nil
	}
	if over > 1 {
		return &payloadError{webhook.KindOther, fmt.Sprintf("its attempts were interrupted before they had an outcome, also when it was sent alone: "+
			"see whether the dispatcher was killed for want of memory (%d attempts, %d are allowed)", dl.tries-1, limit+1), true}
	}
	timer, ticker := time.NewTimer(aloneWithin), time.NewTicker(aloneWithin/100)
	defer timer.Stop()
	defer ticker.Stop()
	d.log.Warn("the attempts of an event were interrupted more often than it may be tried: sending it alone", "event", eventID(dl), "trigger", dl.event.Trigger)
	for {
		if mine, quiet := d.scheduler.quiesce(dl); mine && quiet {
			return nil
		}
		select {
		case <-ticker.C:
		case <-timer.C:
			return nil // what still is in flight hangs
		case <-d.sendCtx.Done():
			return nil
		}
	}
}

// aloneWithin is how long an event that is to be sent alone waits for the others. By then attempts that hang no longer count.
const aloneWithin = 2 * time.Second

// errNotFetched says that an attempt is not made. What is to be done about it has been done.
var errNotFetched = errors.New("the payload was not fetched")

// payloadError says that what an event says can't be sent: that is a failed attempt of this event, and of no other.
type payloadError struct {
	kind    webhook.Kind
	why     string
	forGood bool // trying again does not help
}

func (e *payloadError) Error() string { return e.why }

// unreadable is the payloadError of a statement that failed.
func unreadable(err error) *payloadError {
	return &payloadError{webhook.KindBadPayload, "the payload can't be read from the database: " + err.Error(), sqlschema.IsBadData(err)}
}

// checkSize refuses a payload above the largest body.
func (d *Dispatcher) checkSize(size int64) *payloadError {
	if size <= d.cfg.MaxBody {
		return nil
	}
	return &payloadError{webhook.KindTooLarge, fmt.Sprintf("the payload of %d bytes is over the limit of %d: raise --max-body, or have the trigger's payload.columns leave out what is large", size, d.cfg.MaxBody), true}
}

// checkPayload finds bytes that are no UTF-8. A database in SQL_ASCII may hold any, and what comes through a pooler may not have been checked.
func (d *Dispatcher) checkPayload(e *webhook.Event) *payloadError {
	if err := d.checkSize(int64(len(e.Old) + len(e.New) + len(e.Session) + len(e.Trace))); err != nil {
		return err
	}
	for name, part := range map[string][]byte{"old": e.Old, "new": e.New, "session variables": e.Session, "trace context": e.Trace} {
		if !utf8.Valid(part) {
			return &payloadError{webhook.KindBadPayload, "the payload (" + name + ") has bytes that are no UTF-8: the database does not check the encoding of what it stores", true}
		}
	}
	return nil
}

// fetchAgain is when an event is claimed again whose payload could not be fetched.
const fetchRetry = 5 * time.Second

// fetch reads the payload that the claim left behind, once there is room for it. free gives the room back.
func (d *Dispatcher) fetch(dl *delivery, timeout time.Duration) (free func(), err error) {
	// What is left of the lease has to be enough for the attempt, after waiting for room and for the payload.
	ctx, cancel := context.WithDeadline(d.sendCtx, dl.expires.Add(-timeout-settleMargin))
	defer cancel()
	nothing := func() {}
	if large := d.checkSize(dl.held); large != nil { // it is larger still when it is unpacked
		return nothing, large
	}
	size, ours, err := d.size(ctx, dl)
	if err != nil || !ours {
		return nothing, d.unfetched(dl, ours, err)
	}
	if large := d.checkSize(size); large != nil {
		return nothing, large
	}
	// The payload is in memory twice: as rows and as the request's body.
	release, err := d.payload.take(ctx, dl.lane.id, 2*size)
	if err != nil { // it took too long, or we are stopping
		d.settler.add(dl, sqlschema.Settlement{Fate: sqlschema.Released})
		return nothing, errNotFetched
	}
	p, ours, err := sqlschema.FetchPayload(ctx, d.writes, d.id, dl.holding())
	if err != nil || !ours {
		return release, d.unfetched(dl, ours, err)
	}
	dl.event.Old, dl.event.New, dl.event.Session, dl.event.Trace = p.Old, p.New, p.Session, p.Trace
	return func() {
		dl.event.Old, dl.event.New, dl.event.Session, dl.event.Trace = nil, nil, nil, nil
		release()
	}, nil
}

// size is that of a payload when it is fetched. The server unpacks what is compressed to measure it, so that is done for one at a time:
// others need the connections.
func (d *Dispatcher) size(ctx context.Context, dl *delivery) (size int64, ours bool, err error) {
	if !dl.packed {
		return dl.held, true, nil
	}
	select {
	case d.measure <- struct{}{}:
		defer func() { <-d.measure }()
	case <-ctx.Done():
		return 0, true, ctx.Err()
	}
	return sqlschema.PayloadSize(ctx, d.writes, d.id, dl.holding())
}

// unfetched ends a delivery whose payload could not be had, unless that is the payload's own fault: then it returns a *payloadError.
func (d *Dispatcher) unfetched(dl *delivery, ours bool, err error) error {
	switch {
	case sqlschema.IsData(err):
		d.scheduler.poisoned(dl.lane)
		return unreadable(err)
	case errors.Is(err, context.DeadlineExceeded) || d.sendCtx.Err() != nil: // it took too long, or we are stopping
		d.settler.add(dl, sqlschema.Settlement{Fate: sqlschema.Released})
	case err != nil:
		if begins, _ := d.failing.failed(dl.event.Trigger, time.Now(), false, []slog.Attr{slog.String("error", err.Error())}); begins {
			d.log.Warn("can't fetch a payload, the event will be claimed again; counted each minute from now on", "event", eventID(dl), "trigger", dl.event.Trigger, "in", fetchRetry, "error", err)
		}
		d.settler.add(dl, sqlschema.Settlement{Fate: sqlschema.Released, Delay: fetchRetry})
	case !ours:
		d.log.Warn("an event was taken over by another instance before it was sent", "event", eventID(dl), "trigger", dl.event.Trigger)
		d.scheduler.settled([]*delivery{dl})
	}
	return errNotFetched
}

// reason says why an event is given up.
func reason(r *webhook.Result) string {
	if r.Err != "" {
		return r.Err
	}
	return fmt.Sprintf("the receiver answered %d", r.Status)
}
