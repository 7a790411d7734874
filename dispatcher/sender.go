package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// sender makes attempts.
type sender struct {
	scheduler *scheduler
	settler   *settler
	payloads  *payloads
	orderer   *orderer
	unable    *unableTriggers
	activity  *activityCounter
	failing   *failing
	inbox     *inbox
	tell      *observers
	log       *slog.Logger

	// ctx ends when attempts in flight are to be given up. Run sets it before the loops start.
	ctx      context.Context
	attempts sync.WaitGroup
}

// begin starts the shipments of what was claimed or handed over. It gives back what may not be sent, and
// gives up what has expired.
func (s *sender) begin(start []*shipment, unsent []*delivery) {
	s.settler.giveBack(unsent)
	s.expire(s.scheduler.takeOverdue()...)
	for _, sh := range start {
		s.send(sh)
	}
}

// send starts a shipment, on a goroutine that goes on with the next one of a free slot.
func (s *sender) send(sh *shipment) {
	s.attempts.Go(func() {
		for sh != nil {
			sh = s.ship(sh)
		}
	})
}

// ship sends a shipment and returns the one that takes its slot.
func (s *sender) ship(sh *shipment) *shipment {
	ctx, ended, spec, endpoint := s.scheduler.plan(s.ctx, sh)
	defer ended()
	if !s.mayStart(sh, endpoint) {
		s.settler.giveBack(sh.deliveries)
		return s.scheduler.done(sh, 0, false)
	}
	// The configuration or a file has changed since it was claimed.
	if err := endpoint.Prepare(); err != nil {
		s.unable.disable(sh, err)
		return s.scheduler.done(sh, 0, false)
	}
	if len(sh.deliveries) > 1 {
		if !s.count(sh, endpoint) {
			return s.scheduler.done(sh, 0, false)
		}
		return s.attemptBatch(ctx, sh, spec, endpoint)
	}
	return s.attempt(ctx, sh, spec, endpoint)
}

// mayStart reports whether a shipment may be sent: its lease lasts for an attempt, which it does not
// if it has waited here for long, and the lanes of its events are this instance's.
func (s *sender) mayStart(sh *shipment, endpoint Endpoint) bool {
	return time.Until(sh.expires()) >= min(endpoint.Timeout(), longestLease)+settleMargin && s.orderer.mine(sh)
}

// count counts the attempts of a shipment that may end this dispatcher, before they are made. If it
// returns false, the shipment is given back.
func (s *sender) count(sh *shipment, endpoint Endpoint) bool {
	missing, err := s.orderer.note(s.ctx, sh)
	if err == nil && len(missing) == 0 && s.mayStart(sh, endpoint) { // the statement may have taken long
		return true
	}
	delay := time.Duration(0)
	if err != nil {
		delay = countRetry
	}
	for _, d := range sh.deliveries {
		if slices.Contains(missing, d) {
			s.settler.missed(d)
			continue
		}
		s.settler.add(d, queue.Settlement{Fate: queue.Released, Delay: delay})
	}
	return false
}

// countRetry is the delay before an attempt is tried again that could not be counted.
const countRetry = time.Second

// attempt makes one attempt to send the only event of a shipment, and returns the shipment that
// takes its slot.
func (s *sender) attempt(ctx context.Context, sh *shipment, spec *trigger.Spec, endpoint Endpoint) *shipment {
	dl := sh.first()
	if expired(spec, dl, time.Now()) {
		s.scheduler.judged(sh, endpoint.OwnTLS(), nil, time.Now())
		next := s.scheduler.done(sh, 0, false)
		s.expire(dl)
		return next
	}
	limit, batch := spec.Retry.Limit, ""
	if !spec.Batch.IsZero() {
		limit++ // the attempt alone that follows the last one in a batch
		batch = webhook.BatchID([]*webhook.Event{&dl.event})
	}
	bad, alone := s.interrupted(sh, dl, limit)
	if !alone {
		s.settler.add(dl, queue.Settlement{Fate: queue.Released, Delay: aloneRetry})
		return s.scheduler.done(sh, 0, false)
	}
	if bad == nil && !s.count(sh, endpoint) {
		return s.scheduler.done(sh, 0, false)
	}
	if bad == nil && dl.held > 0 {
		free, err := s.payloads.fetch(s.ctx, dl, min(endpoint.Timeout(), longestLease))
		defer free()
		if err != nil && !errors.As(err, &bad) {
			return s.scheduler.done(sh, 0, false)
		}
	}
	if bad == nil {
		bad = s.payloads.check(&dl.event)
	}
	if bad == nil {
		dl.event.Trim(spec.Payload)
	}
	dl.begun(bad == nil)
	ctx, ended := s.tell.attempting(ctx, &dl.event, int(dl.tries))
	var result webhook.Result
	switch {
	case bad != nil:
		result = bad.result()
	case batch != "":
		var failed []int
		if result, failed = endpoint.SendBatch(ctx, []*webhook.Event{&dl.event}); len(failed) > 0 {
			result = result.Rejected()
		}
	default:
		result = endpoint.Send(ctx, &dl.event)
	}
	if len(spec.Payload.Mask) > 0 {
		result = result.Masked()
	}
	probed := s.scheduler.judged(sh, endpoint.OwnTLS(), sentResult(&result, bad), time.Now())
	if bad == nil && pauses(spec.Retry, &result) {
		s.settler.giveBack(s.scheduler.suspend(sh.lane, sh.version))
		next := s.scheduler.done(sh, result.Duration, true)
		what, delay := fate(spec.Retry, int(dl.tries), dl.event.ID, &result)
		if held, wait := s.pause(sh, spec, result.Status); held {
			what, delay = queue.Released, wait
		}
		s.conclude(dl, spec, endpoint, &result, batch, what, delay, ended)
		return next
	}
	if probed {
		s.settler.giveBack(sh.deliveries)
		return s.scheduler.done(sh, result.Duration, true)
	}
	next := s.scheduler.done(sh, result.Duration, bad == nil)

	what, delay := fate(spec.Retry, int(dl.tries), dl.event.ID, &result)
	if b := wasBrokenOff(ctx, &result); b != nil {
		what, delay = b.fateOf(dl), 0
	}
	s.conclude(dl, spec, endpoint, &result, batch, what, atLast(spec, dl, what, delay, time.Now()), ended)
	return next
}

// conclude hands over what became of an event by an attempt, and tells everybody. batch is the id
// of the request of a trigger with batches.
func (s *sender) conclude(dl *delivery, spec *trigger.Spec, endpoint Endpoint, result *webhook.Result, batch string, what queue.Fate, delay time.Duration, ended []func(Attempt)) {
	s.settler.add(dl, settlementOf(spec, attemptOf(result, batch), result, what, delay))
	s.report(dl, endpoint, result, batch, what, delay, ended)
}

// attemptOf is what is written of a request.
func attemptOf(result *webhook.Result, batch string) *queue.Attempt {
	return &queue.Attempt{
		StartedAt: result.StartedAt, Duration: result.Duration, Status: result.Status, Kind: string(result.Kind),
		Error: result.Err, Header: result.Header, Body: string(result.Body), Batch: batch,
	}
}

// settlementOf is what is written of an event by an attempt.
func settlementOf(spec *trigger.Spec, attempt *queue.Attempt, result *webhook.Result, what queue.Fate, delay time.Duration) queue.Settlement {
	outcome := queue.Settlement{Fate: what, Delay: delay, Attempt: attempt}
	if what == queue.Dead {
		outcome.Reason = reason(result)
		if givenUp(spec.Retry, result) {
			outcome.Reason += ", which retry.statuses calls dead"
		}
	}
	return outcome
}

// report tells everybody what became of an event.
func (s *sender) report(dl *delivery, endpoint Endpoint, result *webhook.Result, batch string, what queue.Fate, delay time.Duration, ended []func(Attempt)) {
	s.activity.add(dl, result, what)
	s.tell.attempted(dl, endpoint, result, batch, what, delay, ended)
	s.failing.report(dl, endpoint, result, what, delay)
}

// sentResult is the outcome of a request; nil: none was sent.
func sentResult(r *webhook.Result, bad *payloadError) *webhook.Result {
	if bad != nil {
		return nil
	}
	return r
}

// interrupted deals with an event that has used up its attempts, and whose last attempt ended
// without an outcome. Such an event may be what ends the dispatcher. It is sent alone once, so that
// no other event suffers. If that attempt ends without an outcome too, the event is a dead letter.
// mine is false while another event is sent alone, for an event that has to be given back: its claim
// would count as interrupted if the other one ends the dispatcher. One that was not claimed waits.
func (s *sender) interrupted(sh *shipment, dl *delivery, limit int) (bad *payloadError, mine bool) {
	over := int(dl.tries) - (limit + 1)
	if !dl.broken || over <= 0 {
		return nil, true
	}
	if over > 1 {
		return &payloadError{webhook.KindOther, fmt.Sprintf("its attempts were interrupted before they had an outcome, and so was the one that was made alone: "+
			"check whether the dispatcher was killed for lack of memory (%d attempts, %d are allowed)", dl.tries-1, limit+1), true}, true
	}
	timer, ticker := time.NewTimer(aloneWithin), time.NewTicker(aloneWithin/100)
	defer timer.Stop()
	defer ticker.Stop()
	said := false
	for {
		mine, quiet := s.scheduler.quiesce(sh)
		switch {
		case !mine && dl.placed == nil:
			return nil, false
		case !mine:
			timer.Reset(aloneWithin)
		case !said:
			said = true
			s.log.Warn("an event has used up its attempts and the last one was interrupted; sending it alone, in case it crashes the dispatcher", "event", eventID(dl), "trigger", dl.event.Trigger)
		}
		// An outcome that is not written yet would be lost, and its event suspected, too.
		if mine && quiet && s.settler.allWritten() {
			return nil, true
		}
		select {
		case <-ticker.C:
		case <-timer.C:
			return nil, true // what is still in flight hangs
		case <-s.ctx.Done():
			return nil, true
		}
	}
}

// aloneWithin is how long an event that is to be sent alone waits for the others. By then attempts
// that hang no longer count.
const aloneWithin = 2 * time.Second

// aloneRetry is the delay before an event is sent alone that was given back for another one.
const aloneRetry = 500 * time.Millisecond

// reason returns why an event is given up.
func reason(r *webhook.Result) string {
	if r.Err != "" {
		return r.Err
	}
	return fmt.Sprintf("the receiver answered %d", r.Status)
}

// stallEvery is how often to look for attempts that hang.
const stallEvery = 250 * time.Millisecond

// watchStalls gives the places of attempts that hang to others, until ctx is done.
func (s *sender) watchStalls(ctx context.Context) {
	s.scheduler.stalls.every(ctx, stallEvery, func() bool {
		start, more := s.scheduler.stall(time.Now())
		for _, sh := range start {
			s.send(sh)
		}
		return more
	})
}
