package dispatcher

import (
	"context"
	"encoding/binary"
	"math/bits"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// batchAttempt is one attempt to send the events of a shipment: a request with all of them, and,
// where that fails time and again, requests with halves of them.
type batchAttempt struct {
	*sender
	shipment *shipment
	spec     *trigger.Spec
	endpoint Endpoint
	ctx      context.Context
	until    time.Time // no further request may start behind it

	ended    map[*delivery][]func(Attempt) // of observers
	outcomes []batchOutcome
	requests int
	probed   bool            // it was a probe that failed, and counts no attempt
	answer   int             // status for which the trigger is paused; 0: none
	held     bool            // it is paused, so the events of that answer wait
	heldFor  time.Duration   // if it is not known to be
	failures int             // in a row
	lost     map[string]bool // keys of which an event has failed, of an ordered trigger
	behind   map[string]bool // keys that an event holds that has expired
}

// batchOutcome is how the request that decided about an event went.
type batchOutcome struct {
	delivery *delivery
	result   *webhook.Result
	batch    string   // id of the request
	seed     [16]byte // of the delay: the first event of the request
	proven   bool     // the failure is the event's own
}

// mostFailures is how many requests of one attempt may fail in a row. Then the receiver is ill, and
// not one of the events. To find one event among n takes log2(n) of them.
func mostFailures(n int) int { return max(10, bits.Len(uint(n))+2) }

// attemptBatch makes one attempt to send the events of a shipment, and returns the shipment that
// takes its slot.
func (s *sender) attemptBatch(ctx context.Context, sh *shipment, spec *trigger.Spec, endpoint Endpoint) *shipment {
	b := &batchAttempt{
		sender: s, shipment: sh, spec: spec, endpoint: endpoint, ctx: ctx, ended: map[*delivery][]func(Attempt){},
		until: sh.expires().Add(-min(endpoint.Timeout(), longestLease) - settleMargin),
	}
	good := make([]*delivery, 0, len(sh.deliveries))
	var old, back []*delivery // that have expired, and that wait behind them
	var trace http.Header     // of the first event
	for _, dl := range sh.deliveries {
		if dl.key != "" && b.behind[dl.key] {
			back = append(back, dl)
			continue
		}
		if expired(spec, dl, time.Now()) {
			if dl.key != "" && dl.placed.blocks {
				if b.behind == nil {
					b.behind = map[string]bool{}
				}
				b.behind[dl.key] = true
			}
			old = append(old, dl)
			continue
		}
		header, ended := s.tell.attemptingOne(&dl.event, int(dl.tries))
		if len(ended) > 0 {
			b.ended[dl] = ended
		}
		if len(good) == 0 && len(trace) == 0 {
			trace = header
		}
		if bad := s.payloads.check(&dl.event); bad != nil {
			result := b.shown(bad.result())
			b.decide([]*delivery{dl}, batchOutcome{result: &result, seed: dl.event.ID, proven: true})
			continue
		}
		dl.event.Trim(spec.Payload)
		good = append(good, dl)
	}
	if len(trace) > 0 {
		b.ctx = webhook.WithHeader(ctx, trace)
	}
	var took time.Duration
	if len(good) > 0 {
		took = b.send(good, nil)
	} else {
		b.probed = s.scheduler.judged(sh, endpoint.OwnTLS(), nil, time.Now())
	}
	if b.probed {
		s.expire(old...)
		s.settler.giveBack(back)
		s.settler.giveBack(slices.DeleteFunc(slices.Clone(sh.deliveries), func(dl *delivery) bool { return slices.Contains(old, dl) || slices.Contains(back, dl) }))
		return s.scheduler.done(sh, took, true)
	}
	s.settler.giveBack(back)
	if b.answer != 0 {
		s.settler.giveBack(s.scheduler.suspend(sh.lane, sh.version))
	}
	next := s.scheduler.done(sh, took, b.requests > 0)
	s.expire(old...)
	if b.answer != 0 {
		b.held, b.heldFor = s.pause(sh, spec, b.answer)
	}
	b.conclude()
	return next
}

// send sends a part of the shipment. If that fails and enough was tried before, it sends the halves.
// above is the request that failed before with these events among others; nil: none. send returns
// how long the request took.
func (b *batchAttempt) send(part []*delivery, above *batchOutcome) time.Duration {
	if above != nil && (b.answer != 0 || b.failures >= mostFailures(len(b.shipment.deliveries)) || time.Now().After(b.until) || b.ctx.Err() != nil) {
		b.decide(part, *above)
		return 0
	}
	if part = b.inTurn(part); len(part) == 0 {
		return 0
	}
	if above != nil && !b.scheduler.awaitSlot(b.ctx, b.shipment.lane, b.until) {
		b.decide(part, *above)
		return 0
	}
	events := make([]*webhook.Event, len(part))
	for i, dl := range part {
		events[i] = &dl.event
		dl.begun(true)
	}
	result, failed := b.endpoint.SendBatch(b.ctx, events)
	result = b.shown(result)
	if b.requests++; b.requests == 1 { // the halves of a batch say nothing more about the endpoint
		b.probed = b.scheduler.judged(b.shipment, b.endpoint.OwnTLS(), &result, time.Now()) && !pauses(b.spec.Retry, &result)
		if b.probed {
			return result.Duration
		}
	}
	outcome := batchOutcome{result: &result, batch: webhook.BatchID(events), seed: part[0].event.ID, proven: len(part) == 1}
	if result.Delivered() {
		b.failures = 0
		b.delivered(part, failed, outcome)
		return result.Duration
	}
	b.failures++
	if pauses(b.spec.Retry, &result) {
		b.answer = result.Status
		b.decide(part, outcome)
		return result.Duration
	}
	if len(part) == 1 || !b.halves(part, &result) {
		b.decide(part, outcome)
		return result.Duration
	}
	half := (len(part) + 1) / 2
	b.send(part[:half], &outcome)
	b.send(part[half:], &outcome)
	return result.Duration
}

// shown returns a result as it may be shown.
func (b *batchAttempt) shown(r webhook.Result) webhook.Result {
	if len(b.spec.Payload.Mask) > 0 {
		return r.Masked()
	}
	return r
}

// delivered decides about events whose request had a 2xx status. failed are those which the
// response lists.
func (b *batchAttempt) delivered(part []*delivery, failed []int, outcome batchOutcome) {
	rejected := outcome
	if len(failed) > 0 {
		r := outcome.result.Rejected()
		rejected.result, rejected.proven = &r, true
	}
	slices.Sort(failed)
	for i, dl := range part {
		_, rejects := slices.BinarySearch(failed, i)
		switch {
		case rejects:
			b.decide(part[i:i+1], rejected)
		case dl.key != "" && b.lost[dl.key]:
			b.decideBehind(dl)
		default:
			b.outcomes = append(b.outcomes, batchOutcome{dl, outcome.result, outcome.batch, outcome.seed, outcome.proven})
		}
	}
}

// inTurn returns the events of a part that may be sent. An event of an ordered trigger may not if an
// earlier one of its key has failed in this attempt: it has failed with it.
func (b *batchAttempt) inTurn(part []*delivery) []*delivery {
	if len(b.lost) == 0 {
		return part
	}
	sendable := make([]*delivery, 0, len(part))
	for _, dl := range part {
		if dl.key != "" && b.lost[dl.key] {
			b.decideBehind(dl)
			continue
		}
		sendable = append(sendable, dl)
	}
	return sendable
}

// decideBehind has an event fail with an earlier one of its key.
func (b *batchAttempt) decideBehind(dl *delivery) {
	result := webhook.Result{StartedAt: time.Now(), Kind: webhook.KindRejected, Err: "an earlier event of its key has failed in the same batch"}
	b.outcomes = append(b.outcomes, batchOutcome{delivery: dl, result: &result, seed: dl.event.ID})
}

// decide has events fail.
func (b *batchAttempt) decide(part []*delivery, outcome batchOutcome) {
	for _, dl := range part {
		if dl.key != "" && b.lost == nil {
			b.lost = map[string]bool{}
		}
		if dl.key != "" {
			b.lost[dl.key] = true
		}
		outcome.delivery = dl
		b.outcomes = append(b.outcomes, outcome)
	}
}

// halves reports whether the events of a request that failed are to be sent in halves: the receiver
// answered, and the body was too large, or the events have failed before, or one of them would be
// given up. A receiver that asks to wait, or can't be reached, would fail each half as well.
func (b *batchAttempt) halves(part []*delivery, r *webhook.Result) bool {
	switch {
	case r.Status == http.StatusRequestEntityTooLarge, r.Kind == webhook.KindTooLarge && r.Hopeless:
		return true
	case givenUp(b.spec.Retry, r):
		return true // it is about one of the events
	case r.Status == 0, r.Status == http.StatusTooManyRequests, r.Status == http.StatusServiceUnavailable:
		return false
	}
	return slices.ContainsFunc(part, func(dl *delivery) bool {
		what, _ := fate(b.spec.Retry, int(dl.tries), dl.event.ID, r)
		return dl.tries >= 2 || what == queue.Dead
	})
}

// conclude hands over what became of the events, and tells everybody. Events of one request share
// its result.
func (b *batchAttempt) conclude() {
	n := len(b.outcomes)
	all, settlements, results := make([]*delivery, n), make([]queue.Settlement, n), make([]*webhook.Result, n)
	var attempt *queue.Attempt
	for i := range b.outcomes {
		o := &b.outcomes[i]
		if i > 0 && o.result == b.outcomes[i-1].result && o.batch == b.outcomes[i-1].batch {
			results[i] = results[i-1]
		} else {
			r := *o.result
			r.Body = beginning(r.Body, max(leastKept, webhook.DefaultKeepBody/len(b.shipment.deliveries)))
			results[i], attempt = &r, attemptOf(&r, o.batch)
		}
		what, delay := b.fate(o)
		all[i], settlements[i] = o.delivery, settlementOf(b.spec, attempt, results[i], what, delay)
	}
	b.settler.addAll(all, settlements)
	for i, dl := range all {
		b.report(dl, b.endpoint, results[i], b.outcomes[i].batch, settlements[i].Fate, settlements[i].Delay, b.ended[dl])
	}
}

// fate decides what becomes of an event. It is a dead letter only by a failure of its own: by a
// request in which it was alone, or a response that lists it. Else it gets one attempt more, alone.
func (b *batchAttempt) fate(o *batchOutcome) (queue.Fate, time.Duration) {
	dl, result := o.delivery, o.result
	if b.held && pauses(b.spec.Retry, result) {
		return queue.Released, b.heldFor
	}
	what, delay := fate(b.spec.Retry, int(dl.tries), o.seed, result)
	if what == queue.Dead && !o.proven {
		what, delay = queue.Retried, backoff(b.spec.Retry, int(dl.tries), o.seed)
		if result.HasRetryAfter && result.RetryAfter > 0 {
			delay = retryAfter(b.spec.Retry, result.RetryAfter)
		}
	}
	if off := wasBrokenOff(b.ctx, result); off != nil {
		what, delay = off.fateOf(dl), 0
	}
	if what == queue.Retried && result.Kind != webhook.KindCanceled {
		// Events that have failed together are due together, and so they are sent together again. Other
		// batches whose outcomes are written by the same statement are due at another time.
		delay += time.Duration(binary.BigEndian.Uint16(o.seed[14:])) * time.Microsecond / 64
	}
	return what, atLast(b.spec, dl, what, delay, time.Now())
}

// leastKept is how much of a response's body is stored at least with each event of a batch. All of
// them together store about as much as a single event does.
const leastKept = 256

// beginning returns the first bytes of a text, without a part of a character.
func beginning(text []byte, most int) []byte {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}
