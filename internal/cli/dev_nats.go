package cli

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

// NATSServer is a server that dev starts.
type NATSServer interface {
	URL() string
	Stream(ctx context.Context, name string, subjects []string) error
	Stop()
}

// NATSMessage is a message that the server of dev got.
type NATSMessage struct {
	At      time.Time
	Subject string
	Header  http.Header
	Data    []byte
}

// startNATS starts the server of --nats. The caller stops it.
func (r *devRun) startNATS() (stop func(), err error) {
	if !r.devOptions.nats {
		return func() {}, nil
	}
	show := r.show.published
	if !r.showing && r.forProgram() {
		show = func(NATSMessage) {}
	}
	if r.natsServer, err = r.parts.NATSServer(show); err != nil {
		return nil, err
	}
	r.show.printf("NATS with JetStream on %s, temporary data\n", r.natsServer.URL())
	return r.natsServer.Stop, nil
}

// checkNATS returns an error if --nats can't be followed.
func (a *app) checkNATS(o devOptions) error {
	if o.nats && a.parts.NATSServer == nil {
		return usagef("--nats: %w", dispatcher.ErrNoNATS)
	}
	return nil
}

// pointNATS has triggers with nats publish to the server of --nats.
func (r *devRun) pointNATS(given, pointed []trigger.Spec) []trigger.Spec {
	pointed = slices.Clone(pointed)
	for i := range given {
		if given[i].Kind() == trigger.KindNATS {
			pointed[i] = sandbox.PointNATS(given[i], r.store.Get)
		}
	}
	return pointed
}

// devStream is the stream of triggers that name none.
const devStream = "ROWHOOK"

// prepareStreams makes the streams that the triggers publish to, on the server of --nats.
func (r *devRun) prepareStreams(ctx context.Context, specs []trigger.Spec) error {
	if r.natsServer == nil {
		return nil
	}
	for i := range specs {
		n := &specs[i].NATS
		if n.IsZero() {
			continue
		}
		name := n.Stream
		if name == "" {
			name = devStream
		}
		if err := r.natsServer.Stream(ctx, name, []string{anySubject(n.Subject, r.source)}); err != nil {
			return err
		}
	}
	return nil
}

// anySubject returns a pattern for the subjects that a template makes: * for each token with data.
func anySubject(configured string, source trigger.Source) string {
	parts, err := template.Parse(configured, template.Always)
	if err != nil {
		return configured // it is no template
	}
	text := ""
	for _, part := range parts {
		switch {
		case part.Data != nil:
			text += "*"
		case part.Reference != "":
			value, _ := trigger.Expand(part.Reference, source) // the endpoint says what is missing
			text += value
		default:
			text += part.Text
		}
	}
	tokens := strings.Split(text, ".")
	for i, token := range tokens {
		if strings.Contains(token, "*") {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, ".")
}

// published prints a message that has arrived.
func (s *show) published(m NATSMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page.Printf("%s  %s  %s  %s\n", m.At.Format("15:04:05.000"), s.page.Paint("published", term.Green), term.Clean(m.Subject), term.Clean(strings.Join(m.Header["Nats-Msg-Id"], " ")))
	if len(m.Data) > 0 {
		s.page.Printf("  %s %s\n", s.page.Paint("data", term.Dim), term.Clean(term.Shorten(string(m.Data), longestRow)))
	}
}
