package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Destination is a way on which events leave: webhooks, or a message broker. It makes the endpoints of
// triggers, which share its connections. Claiming, scheduling and settling know neither it nor what an
// Endpoint is made of. TestDestinations has what each of them has to do.
//
// Any number of goroutines may use it and its endpoints.
type Destination interface {
	// Endpoint makes the endpoint of a trigger. source gives out what the spec refers to. The
	// endpoint is never nil. If it can't be called from here, the error says why, and what to do.
	// Then the trigger's events wait. The error holds no value that source gave out.
	Endpoint(spec *trigger.Spec, source trigger.Source) (Endpoint, error)
	// SetGuard replaces the rules about addresses. Connections that were made under other rules are
	// not used for further attempts. It is called before the first endpoint is made, also after Close,
	// if the dispatcher starts again.
	SetGuard(guard Guard)
	// Close closes all connections. No attempt is under way.
	Close()
}

// Endpoint is where the events of one trigger are sent. What it was made of is in force until the
// configuration or a file has changed.
type Endpoint interface {
	// Prepare returns why no event can be sent from here, or nil: a file of the endpoint has gone,
	// for instance. It is called before each attempt, and connects to nothing.
	Prepare() error
	// Send makes one attempt within Timeout. If ctx ends first, the attempt fails with
	// webhook.KindCanceled. When Send returns, nothing reads e any more. The texts of the Result
	// hold no value that the source of the endpoint gave out.
	//
	// The Result says what is to happen: Delivered, whatever else it says, settles the event.
	// Hopeless gives it up alone. RetryAfter bounds the next attempt from below. Everything else is
	// retried as the trigger says, and its Kind and Status tell the breaker whose fault it is.
	Send(ctx context.Context, e *Event) Result
	// SendBatch is Send for several events in one request. failed are the places of those that were
	// not delivered although the Result is. A destination without batches sends a single event.
	SendBatch(ctx context.Context, events []*Event) (r Result, failed []int)
	// BodySize returns the length of the body of an event, or of its part of a batch.
	BodySize(e *Event) int
	// Timeout is the limit of one attempt.
	Timeout() time.Duration
	// Origin names the host that it connects to. Endpoints of one origin fail together if nothing
	// listens there. "": it is not known.
	Origin() string
	// OwnTLS reports whether it has certificates of its own, so that a handshake may fail for it alone.
	OwnTLS() bool
	// Warning returns what is probably a mistake, or "".
	Warning() string
	// String returns it for people, without what may be secret.
	String() string
}

// DestinationConfig is what a dispatcher tells each Destination.
type DestinationConfig struct {
	Version string // of the program, "" if it is not known
	Guard   Guard  // until the first SetGuard
	MaxBody int    // the largest body in bytes: an event with a larger one is hopeless
	Logger  *slog.Logger
}

// destinations are those of a dispatcher, by [trigger.Spec.Kind].
type destinations map[string]Destination

// endpoint makes the endpoint of a trigger, and finds out whether it can be called.
func (all destinations) endpoint(spec *trigger.Spec, source trigger.Source) (Endpoint, error) {
	d := all[spec.Kind()]
	if d == nil {
		return lacking(spec)
	}
	ep, err := d.Endpoint(spec, source)
	if err == nil {
		err = ep.Prepare()
	}
	return ep, err
}

func (all destinations) setGuard(guard Guard) {
	for _, d := range all {
		d.SetGuard(guard)
	}
}

func (all destinations) close() {
	for _, d := range all {
		d.Close()
	}
}

// lackingEndpoint is where a trigger sends whose destination this program does not have.
type lackingEndpoint struct {
	problem error
	shown   string
}

func lacking(spec *trigger.Spec) (Endpoint, error) {
	shown, _ := webhook.NewMessage(&spec.NATS, trigger.Variables(func(string) (string, bool) { return "", false }), 0)
	l := &lackingEndpoint{problem: ErrNoNATS, shown: shown.String()}
	return l, l.problem
}

// ErrNoNATS says that a program has not been built to publish to NATS.
var ErrNoNATS = errors.New("this program can't publish to NATS: use rowhook-nats, which has all of rowhook and is in the same release")

func (l *lackingEndpoint) Prepare() error { return l.problem }

// Send sends nothing.
func (l *lackingEndpoint) Send(context.Context, *Event) Result {
	return Result{StartedAt: time.Now(), Kind: webhook.KindBadURL, Err: l.problem.Error()}
}

// SendBatch sends nothing.
func (l *lackingEndpoint) SendBatch(ctx context.Context, _ []*Event) (Result, []int) {
	return l.Send(ctx, nil), nil
}

func (l *lackingEndpoint) String() string { return l.shown }
func (*lackingEndpoint) Warning() string  { return "" }
func (*lackingEndpoint) Origin() string   { return "" }
func (*lackingEndpoint) OwnTLS() bool     { return false }

// Timeout is that of an attempt that is not made.
func (*lackingEndpoint) Timeout() time.Duration { return trigger.DefaultNATSTimeout.Std() }

// BodySize is of no use, since nothing is claimed.
func (*lackingEndpoint) BodySize(e *Event) int { return e.BodySize() }

// webhooks is the Destination of webhooks.
type webhooks struct {
	caller
	setGuard func(Guard)
	closeAll func()
}

// caller calls webhooks, as a [webhook.Client] does.
type caller interface {
	Prepare(ep *webhook.Endpoint) error
	Send(ctx context.Context, ep *webhook.Endpoint, e *Event, body []byte) Result
	SendBatch(ctx context.Context, ep *webhook.Endpoint, events []*Event) (Result, []int)
}

// NewWebhooks returns the Destination of webhooks that a client calls.
func NewWebhooks(client *webhook.Client) Destination {
	return webhooks{client, client.SetGuard, client.Close}
}

// SetGuard replaces the rules about addresses.
func (w webhooks) SetGuard(guard Guard) { w.setGuard(guard) }

// Close closes the connections.
func (w webhooks) Close() { w.closeAll() }

// Endpoint makes the endpoint of a trigger with a webhook.
func (w webhooks) Endpoint(spec *trigger.Spec, source trigger.Source) (Endpoint, error) {
	ep, err := webhook.NewEndpointFrom(spec.Webhook, source)
	return &webhookEndpoint{ep, w.caller}, err
}

// webhookEndpoint is the webhook of a trigger with the client that calls it.
type webhookEndpoint struct {
	*webhook.Endpoint
	client caller
}

// Prepare returns why it can't be called from here.
func (w *webhookEndpoint) Prepare() error { return w.client.Prepare(w.Endpoint) }

// Send makes one attempt.
func (w *webhookEndpoint) Send(ctx context.Context, e *Event) Result {
	return w.client.Send(ctx, w.Endpoint, e, nil)
}

// SendBatch makes one attempt to send several events.
func (w *webhookEndpoint) SendBatch(ctx context.Context, events []*Event) (Result, []int) {
	return w.client.SendBatch(ctx, w.Endpoint, events)
}
