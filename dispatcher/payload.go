package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/webhook"
)

// payloads fetches the payloads that claims did not fetch, and checks what can be sent.
type payloads struct {
	db        *database
	self      *identity
	scheduler *scheduler
	settler   *settler
	failing   *failing
	log       *slog.Logger

	maxBody int64
	room    *budget
	measure chan struct{} // holds a token while a payload is measured; see size
}

// checkSize rejects a payload that is larger than the largest body.
func (p *payloads) checkSize(size int64) *payloadError {
	if size <= p.maxBody {
		return nil
	}
	return &payloadError{webhook.KindTooLarge, fmt.Sprintf("the payload of %d bytes is over the limit of %d: raise --max-body, or have the trigger's payload.columns leave out what is large", size, p.maxBody), true}
}

// errNotFetched says that an attempt is not made, and that its event has been dealt with.
var errNotFetched = errors.New("the payload was not fetched")

// payloadError says that the payload of an event can't be sent. That is a failed attempt of this
// event, and costs no other.
type payloadError struct {
	kind    webhook.Kind
	why     string
	forGood bool // trying again does not help
}

func (e *payloadError) Error() string { return e.why }

// result is the attempt that fails of it, without a request.
func (e *payloadError) result() webhook.Result {
	return webhook.Result{StartedAt: time.Now(), Kind: e.kind, Err: e.why, Hopeless: e.forGood}
}

// unreadable makes a payloadError of a statement that failed.
func unreadable(err error) *payloadError {
	return &payloadError{webhook.KindBadPayload, "the payload can't be read from the database: " + err.Error(), pg.IsBadData(err)}
}

// check rejects a payload that is too large, or has bytes that are no UTF-8. A database in
// SQL_ASCII may hold any bytes, and those that come through a pooler may not have been checked.
func (p *payloads) check(e *webhook.Event) *payloadError {
	if err := p.checkSize(int64(len(e.Old) + len(e.New) + len(e.Session) + len(e.Trace))); err != nil {
		return err
	}
	for _, part := range [...]struct {
		name string
		json []byte
	}{{"old", e.Old}, {"new", e.New}, {"session variables", e.Session}, {"trace context", e.Trace}} {
		if !utf8.Valid(part.json) {
			return &payloadError{webhook.KindBadPayload, "the payload (" + part.name + ") is not valid UTF-8: this database does not check the encoding of its texts", true}
		}
	}
	return nil
}

// placedFetch bounds the time in which the payload of an event of a lane is fetched. A session may be
// dead without anybody's knowing. Then the event is handed back, and fetched anew.
const placedFetch = statementTimeout

// fetchRetry is the delay before an event is claimed again whose payload could not be fetched.
const fetchRetry = 5 * time.Second

// fetch reads the payload that the claim did not fetch, once there is room for it. free gives the
// room back.
func (p *payloads) fetch(sending context.Context, dl *delivery, timeout time.Duration) (free func(), err error) {
	// After waiting for room and for the payload, enough of the lease has to be left for the
	// attempt.
	until := dl.expires.Add(-timeout - settleMargin)
	if dl.placed != nil { // it has no lease, but the events behind it wait
		until = time.Now().Add(placedFetch)
	}
	ctx, cancel := context.WithDeadline(sending, until)
	defer cancel()
	nothing := func() {}
	if large := p.checkSize(dl.held); large != nil { // unpacked, it is even larger
		return nothing, large
	}
	size, ours, err := p.size(ctx, dl)
	if err != nil || !ours {
		return nothing, p.unfetched(sending, dl, ours, err)
	}
	if large := p.checkSize(size); large != nil {
		return nothing, large
	}
	// The payload is in memory twice: as rows and as the request's body.
	release, err := p.room.take(ctx, holder{p.self, dl.lane.id}, 2*size)
	if err != nil { // it took too long, or we are stopping
		p.settler.add(dl, queue.Settlement{Fate: queue.Released})
		return nothing, errNotFetched
	}
	held, ours, err := queue.FetchPayload(ctx, p.db.writes, p.self.id, dl.holding())
	if err != nil || !ours {
		return release, p.unfetched(sending, dl, ours, err)
	}
	dl.event.Old, dl.event.New, dl.event.Session, dl.event.Trace = held.Old, held.New, held.Session, held.Trace
	return func() {
		dl.event.Old, dl.event.New, dl.event.Session, dl.event.Trace = nil, nil, nil, nil
		release()
	}, nil
}

// size returns the size of a payload when it is fetched. The server unpacks a compressed payload to
// measure it. So one is measured at a time, since other work needs the connections.
func (p *payloads) size(ctx context.Context, dl *delivery) (size int64, ours bool, err error) {
	if !dl.packed {
		return dl.held, true, nil
	}
	select {
	case p.measure <- struct{}{}:
		defer func() { <-p.measure }()
	case <-ctx.Done():
		return 0, true, ctx.Err()
	}
	return queue.PayloadSize(ctx, p.db.writes, p.self.id, dl.holding())
}

// unfetched ends a delivery whose payload could not be fetched. If the payload itself is at fault,
// it returns a *payloadError and the delivery goes on.
func (p *payloads) unfetched(sending context.Context, dl *delivery, ours bool, err error) error {
	switch {
	case pg.IsData(err):
		p.scheduler.unreadable(dl.lane)
		return unreadable(err)
	case errors.Is(err, context.DeadlineExceeded) || sending.Err() != nil: // too late, or stopping
		p.settler.add(dl, queue.Settlement{Fate: queue.Released})
	case err != nil:
		if begins, _ := p.failing.failed(dl.event.Trigger, time.Now(), false, []slog.Attr{slog.String("error", err.Error())}); begins {
			p.log.Warn("can't fetch an event's payload; it will be claimed again, and further failures are counted each minute", "event", eventID(dl), "trigger", dl.event.Trigger, "in", fetchRetry, "error", err)
		}
		p.settler.add(dl, queue.Settlement{Fate: queue.Released, Delay: fetchRetry})
	case !ours && dl.placed != nil: // somebody has discarded it, or another owner of its lane has settled it
		p.settler.missed(dl)
	case !ours:
		p.log.Warn("an event was taken over by another instance before it was sent", "event", eventID(dl), "trigger", dl.event.Trigger)
		p.scheduler.settled([]*delivery{dl})
	}
	return errNotFetched
}
