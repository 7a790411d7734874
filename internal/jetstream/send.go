package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// What an attempt repeats by itself. The id of a message lets the stream drop what it has already.
const (
	mostLost   = 2                      // connections that may be lost in one attempt
	leaderWait = 250 * time.Millisecond // before a message is published again that no stream has taken
	mostNoted  = 2                      // how often, if nothing was stored a short time ago
	workedFor  = time.Minute            // what was stored within it, shows that there is a stream
	leaderless = 5 * time.Second        // for so long, a stream that has worked may choose a leader
)

// stored and noStream are the statuses of a message that a stream has stored, and of one that none
// takes. The second is that of NATS.
const (
	stored   = 200
	noStream = 503
)

// Send makes one attempt: it publishes a message and waits for its acknowledgement.
func (ep *endpoint) Send(ctx context.Context, e *dispatcher.Event) dispatcher.Result {
	r := dispatcher.Result{StartedAt: time.Now()}
	ep.send(ctx, e, &r)
	r.Duration = max(time.Since(r.StartedAt), 1)
	return r
}

func (ep *endpoint) send(ctx context.Context, e *dispatcher.Event, r *dispatcher.Result) {
	switch {
	case ep.Problem() != nil:
		r.Kind, r.Err = webhook.KindBadURL, ep.Problem().Error()
		return
	case ctx.Err() != nil:
		r.Kind, r.Err = webhook.KindCanceled, ep.Scrub(webhook.DescribeCancel(ctx))
		return
	}
	made, free, bad := ep.Make(ctx, e, r.StartedAt)
	if bad != nil {
		*r = *bad
		return
	}
	defer free()
	w := ep.destination.all.waiter(ep.Timeout() - time.Since(r.StartedAt))
	a := attempt{endpoint: ep, waiter: w, message: nats.Msg{Subject: made.Subject, Header: nats.Header(made.Header), Data: made.Body}, result: r}
	a.run(ctx)
	ep.destination.all.keep(w)
}

// waiter is what an attempt waits by. Attempts share them one after the other.
type waiter struct {
	answers chan *nats.Msg
	over    *time.Timer // the time of the attempt
}

// waiter returns one whose time has begun.
func (c *Connections) waiter(limit time.Duration) *waiter {
	w, _ := c.waiters.Get().(*waiter)
	if w == nil {
		return &waiter{make(chan *nats.Msg, 1), time.NewTimer(limit)}
	}
	w.over.Reset(limit)
	return w
}

// keep takes back what waiter returned.
func (c *Connections) keep(w *waiter) {
	w.over.Stop()
	c.waiters.Put(w)
}

// attempt is one attempt.
type attempt struct {
	*endpoint
	*waiter

	message nats.Msg
	result  *dispatcher.Result
	lost    int // connections
	unheard int // how often no stream has taken the message
}

// run publishes until there is an outcome.
func (a *attempt) run(ctx context.Context) {
	for {
		s, err := a.destination.slot(a.endpoint)
		if err != nil {
			a.fail(webhook.KindCanceled, err.Error())
			return
		}
		again := a.once(ctx, s)
		s.release(a.result.Delivered())
		if !again {
			return
		}
	}
}

// once publishes the message. It returns true if that is to be done once more.
func (a *attempt) once(ctx context.Context, s *slot) (again bool) {
	c, failed := s.acquire(ctx, a.endpoint, a.over.C)
	switch {
	case c == nil && failed == nil:
		a.ended(ctx, "no connection")
		return false
	case failed != nil && failed.ended && a.lost < mostLost:
		a.lost++
		return true
	case failed != nil:
		a.result.Connected = false
		a.fail(failed.kind, failed.text)
		return false
	}
	a.result.Connected = true
	refusals := c.refusals.Load()
	number, err := c.publish(&a.message, a.answers)
	defer c.forget(number, a.answers)
	if err != nil {
		return a.unpublished(c, err)
	}
	for {
		select {
		case m := <-a.answers:
			return a.answered(ctx, s, m)
		case <-c.gone:
			return a.broken(c)
		case <-refusals.done:
			if refusals.subject == a.message.Subject {
				a.fail(webhook.KindUnauthorized, fmt.Sprintf("the login may not publish under %s: allow it in the permissions of the user", refusals.subject))
				return false
			}
			refusals = refusals.next
			continue
		case <-ctx.Done():
		case <-a.over.C:
		}
		a.ended(ctx, "no acknowledgement")
		return false
	}
}

// answer is what a stream says, and what an attempt keeps of it.
type answer struct {
	Error     *apiError `json:"error,omitempty"`
	Stream    string    `json:"stream"`
	Seq       uint64    `json:"seq"`
	Domain    string    `json:"domain,omitempty"`
	Duplicate bool      `json:"duplicate,omitempty"`
}

// apiError is an error of JetStream.
type apiError struct {
	Code        int    `json:"code"`
	ErrorCode   int    `json:"err_code"`
	Description string `json:"description"`
}

// answered takes in an answer.
func (a *attempt) answered(ctx context.Context, s *slot, m *nats.Msg) (again bool) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return a.unheardOf(ctx, s)
	}
	var of answer
	err := json.Unmarshal(m.Data, &of)
	switch {
	case err == nil && of.Error != nil:
		a.refusedBy(of.Error)
	case err == nil && of.Stream != "":
		a.acknowledged(of)
	default:
		a.result.Status = noStream
		a.fail(webhook.KindResponse, fmt.Sprintf("what answers under %s is no stream of JetStream: correct subject", a.message.Subject))
	}
	return false
}

// acknowledged takes in that a stream has the message.
func (a *attempt) acknowledged(ack answer) {
	if want := a.Stream(); want != "" && ack.Stream != want {
		a.result.Status = noStream
		a.fail(webhook.KindResponse, fmt.Sprintf("the stream %s has stored the message, and stream is %s: have %s alone take the subject, or correct stream", ack.Stream, want, want))
		return
	}
	a.result.Status = stored
	a.result.Body, _ = json.Marshal(ack)
}

// fail ends the attempt.
func (a *attempt) fail(kind webhook.Kind, text string) {
	a.result.Kind, a.result.Err = kind, a.Scrub(text)
}

// ended says that the time is over, or that the attempt was canceled. what is what it has waited for.
func (a *attempt) ended(ctx context.Context, what string) {
	if ctx.Err() != nil {
		a.fail(webhook.KindCanceled, webhook.DescribeCancel(ctx))
		return
	}
	text := fmt.Sprintf("%s within %s", what, trigger.Duration(a.Timeout()))
	if a.result.Connected {
		text += ": look whether the stream has a quorum (nats stream info) and its servers are in time, or raise timeout"
	}
	a.fail(webhook.KindTimeout, text)
}

// broken takes in that the connection was lost before there was an acknowledgement.
func (a *attempt) broken(c *connection) (again bool) {
	if c.deaf.Load() {
		a.fail(webhook.KindUnauthorized, "the login may not subscribe to _INBOX.>, where acknowledgements arrive: allow it in the permissions of the user")
		return false
	}
	if a.lost++; a.lost <= mostLost {
		return true
	}
	text := "the connection to " + host(a.endpoint) + " was closed before the message was acknowledged"
	if err := c.nc.LastError(); err != nil {
		text += ": " + strings.TrimPrefix(err.Error(), "nats: ")
	}
	a.fail(webhook.KindReset, text)
	return false
}

// unpublished takes in why the library has not sent the message.
func (a *attempt) unpublished(c *connection, err error) (again bool) {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		a.result.Hopeless = true
		a.fail(webhook.KindTooLarge, fmt.Sprintf("the message of %d bytes is over the servers' max_payload of %d: raise it there, or leave large columns out of the trigger's payload.columns",
			a.message.Size(), c.nc.MaxPayload()))
	case isAny(err, nats.ErrConnectionClosed, nats.ErrConnectionDraining, nats.ErrDisconnected):
		return a.broken(c)
	case errors.Is(err, nats.ErrHeadersNotSupported):
		a.fail(webhook.KindOther, "the server has no headers, which messages need: use NATS 2.2 or later")
	default:
		a.fail(webhook.KindOther, strings.TrimPrefix(err.Error(), "nats: "))
	}
	return false
}

// Error codes of JetStream. Package jetstream has no names for most of them.
const (
	codeTooLarge       = 10054
	codeHeaderTooLarge = 10097
	codeOtherStream    = 10060
	codeStoreFailed    = 10077 // a limit of the stream is reached
	codeNoResources    = 10023
	codeNoStorage      = 10047
	codeNotAvailable   = 10008
	codeNoLeader       = 10009
	codeNotEnabled     = 10076
	codeNoAccount      = 10039
)

// unheardOf takes in that nobody listens under the subject. A stream that chooses a leader does not
// either, so the message is published a few times.
func (a *attempt) unheardOf(ctx context.Context, s *slot) (again bool) {
	a.unheard++
	if a.unheard <= mostNoted || time.Since(a.result.StartedAt) < leaderless && s.hasWorked() {
		select {
		case <-time.After(leaderWait):
			return true
		case <-a.over.C:
		case <-ctx.Done():
			a.ended(ctx, "")
			return false
		}
	}
	a.result.Status = noStream
	subject := a.message.Subject
	text := "no stream takes the subject " + subject + ": create one (nats stream add --subjects), or correct subject"
	if want := a.Stream(); want != "" {
		text = fmt.Sprintf("no stream takes the subject %s: add it to the subjects of the stream %s, or correct subject", subject, want)
	}
	a.fail(webhook.KindResponse, text+"; a stream without a quorum and servers without JetStream take none either")
	return false
}

// refusedBy takes in the error of a stream.
func (a *attempt) refusedBy(api *apiError) {
	a.result.Status = api.Code
	if api.Code/100 == 2 || api.Code < 100 { // it is an error, whatever its code says
		a.result.Status = noStream
	}
	text := fmt.Sprintf("the stream refused the message: %s (%d)", api.Description, api.ErrorCode)
	remedy := ""
	kind := webhook.KindResponse
	switch api.ErrorCode {
	case codeTooLarge, codeHeaderTooLarge:
		kind, a.result.Status, a.result.Hopeless = webhook.KindTooLarge, 0, true
		remedy = "raise max_msg_size of the stream, or leave large columns out of the trigger's payload.columns"
	case codeOtherStream:
		remedy = fmt.Sprintf("the subject %s belongs to another stream than %s: correct subject or stream", a.message.Subject, a.Stream())
	case codeStoreFailed:
		remedy = "the stream is full: consume or purge it, raise its limits, or have it discard old messages"
	case codeNoResources, codeNoStorage:
		remedy = "give JetStream more storage or memory"
	case codeNotAvailable, codeNoLeader:
		remedy = "look whether the cluster has a quorum"
	case codeNotEnabled, codeNoAccount:
		remedy = "enable JetStream for this account"
	}
	if remedy != "" {
		text += ": " + remedy
	}
	a.fail(kind, text)
}
