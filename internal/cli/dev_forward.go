package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

// Limits of an app's answer: what is passed on to the dispatcher, and what is shown, in bytes.
const (
	mostAnswer  = 1 << 20
	shownAnswer = 200
)

// forwarder sends deliveries on to an app.
type forwarder struct {
	app    *url.URL
	names  []string // of the triggers; none: all
	client *http.Client
	show   *show
	target func(trigger string) string // "": its deliveries are not forwarded
}

// newForwarder returns nil without --forward-to.
func newForwarder(o devOptions, show *show, target func(string) string) (*forwarder, error) {
	if o.forwardTo == "" {
		return nil, nil
	}
	app, err := url.Parse(o.forwardTo)
	if err != nil || app.Scheme != "http" && app.Scheme != "https" || app.Hostname() == "" || app.Fragment != "" {
		return nil, usagef("--forward-to %q: write the URL of the app, such as http://localhost:3000", o.forwardTo)
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableCompression: true, // the body of the answer stays as it is
		MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // as in a real delivery
	}}
	return &forwarder{app: app, names: o.forwarded, client: client, show: show, target: target}, nil
}

// targets returns the URLs of the triggers that are forwarded.
func (f *forwarder) targets(specs []trigger.Spec, source trigger.Source) (map[string]string, error) {
	if f == nil {
		return nil, nil
	}
	var known []string
	to := map[string]string{}
	for _, s := range specs {
		known = append(known, s.Name)
		if len(f.names) == 0 || slices.Contains(f.names, s.Name) {
			to[s.Name] = forwardURL(f.app, s.Webhook.URL, source)
			if template.HasData(s.Webhook.URL) { // each delivery has its own path
				to[s.Name] = f.app.String()
			}
		}
	}
	for _, name := range f.names {
		if !slices.Contains(known, name) {
			return nil, usagef("--trigger %s: there is no such trigger%s", name, cmp.Or(suggest.Hint(name, known), listed(known)))
		}
	}
	return to, nil
}

// listed returns the end of a message about a trigger that does not exist.
func listed(triggers []string) string {
	const most = 20
	switch n := len(triggers); {
	case n == 0:
		return "; the configuration has none"
	case n > most:
		return "; the triggers are " + strings.Join(triggers[:most], ", ") + ", ..."
	}
	return "; the triggers are " + strings.Join(triggers, ", ")
}

// forwardURL returns the app's URL with the path and the query of a configured one. What a variable
// stands for that is not set, is not known; it may be the host.
func forwardURL(base *url.URL, configured string, source trigger.Source) string {
	expanded, err := trigger.Expand(configured, func(name string) (string, error) {
		value, err := source(name)
		if err != nil || value == "" {
			return sandbox.Placeholder(name), nil //nolint:nilerr // that it is not known is the answer
		}
		return value, nil
	})
	if err != nil {
		expanded = configured // never: malformed references are errors of the configuration
	}
	_, rest, found := strings.Cut(expanded, "://")
	if !found {
		rest = expanded
	}
	rest, _, _ = strings.Cut(rest, "#")
	start := strings.IndexAny(rest, "/?")
	if start < 0 {
		return base.String()
	}
	path, query, _ := strings.Cut(rest[start:], "?")
	if query = strings.Trim(base.RawQuery+"&"+query, "&"); query != "" {
		query = "?" + query
	}
	return base.Scheme + "://" + authority(base) + strings.TrimRight(base.EscapedPath(), "/") + path + query
}

func authority(u *url.URL) string {
	if u.User != nil {
		return u.User.String() + "@" + u.Host
	}
	return u.Host
}

// respond sends a delivery on, and returns the app's answer. Deliveries of other triggers end here.
func (f *forwarder) respond(ctx context.Context, d sink.Delivery) sink.Response {
	to := f.target(d.Trigger)
	if to == "" {
		f.show.forwarded(&d, "kept by the receiver", term.Dim, nil)
		return sink.Response{Status: http.StatusOK, Body: []byte("ok\n")}
	}
	to = d.Target(to)
	began := time.Now()
	answer, err := f.send(ctx, to, d)
	if err != nil {
		why := f.explain(ctx, err, time.Since(began))
		f.show.forwarded(&d, to+"  "+why, term.Red, nil)
		return sink.Response{Status: http.StatusBadGateway, Body: []byte("rowhook dev: " + why + "\n"), Note: why}
	}
	outcome := fmt.Sprintf("%s  answered %d in %s", to, answer.Status, milliseconds(time.Since(began)))
	colour := term.Green
	if answer.Status/100 != 2 {
		colour = term.Red
	}
	f.show.forwarded(&d, outcome, colour, answer.Body)
	return answer
}

func (f *forwarder) send(ctx context.Context, to string, d sink.Delivery) (sink.Response, error) {
	header, sent := d.ToPassOn()
	req, err := http.NewRequestWithContext(ctx, cmp.Or(d.Method, http.MethodPost), to, bytes.NewReader(sent))
	if err != nil {
		return sink.Response{}, err
	}
	req.Header = header
	dropHopByHop(req.Header)
	resp, err := f.client.Do(req)
	if err != nil {
		return sink.Response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return sink.Response{}, err
	}
	dropHopByHop(resp.Header)
	return sink.Response{Status: resp.StatusCode, Header: resp.Header, Body: body, Note: "answered by " + to}, nil
}

// logger returns the dispatcher's logger, which names the app as the endpoint of what is forwarded:
// the receiver in between only passes on what the app answers.
func (f *forwarder) logger(log *slog.Logger) *slog.Logger {
	if f == nil {
		return log
	}
	return slog.New(&forwarderLog{Handler: log.Handler(), target: f.target})
}

type forwarderLog struct {
	slog.Handler
	target func(trigger string) string
}

func (h *forwarderLog) Handle(ctx context.Context, r slog.Record) error {
	to := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "trigger" {
			to = h.target(a.Value.String())
		}
		return to == ""
	})
	if to == "" {
		return h.Handler.Handle(ctx, r)
	}
	named := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "endpoint" {
			a.Value = slog.StringValue(to)
		}
		named.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, named)
}

func (h *forwarderLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &forwarderLog{h.Handler.WithAttrs(attrs), h.target}
}

func (h *forwarderLog) WithGroup(name string) slog.Handler {
	return &forwarderLog{h.Handler.WithGroup(name), h.target}
}

// dropHopByHop removes headers that are about one connection, or the length of a body.
func dropHopByHop(h http.Header) {
	for _, listed := range h.Values("Connection") {
		for name := range strings.SplitSeq(listed, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Content-Length"} {
		h.Del(name)
	}
}

// explain says why there was no answer.
func (f *forwarder) explain(ctx context.Context, err error, after time.Duration) string {
	switch {
	case ctx.Err() != nil:
		return "no answer within " + trigger.Duration(after.Round(time.Millisecond)).String() + ": the dispatcher gave up"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: is the app running?"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the app closed the connection without an answer"
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return err.Error()
}
