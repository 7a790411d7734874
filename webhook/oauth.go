package webhook

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/rowhook/rowhook/trigger"
)

// grant are the settings of a token, with their references expanded. Endpoints with the same grant
// share tokens.
type grant struct {
	tokenURL, clientID, clientSecret, scopes, audience string

	tls tlsFiles
}

// issuer is where an endpoint's tokens come from.
type issuer struct {
	grant grant
	url   *url.URL
	host  string // for people
}

const (
	// tokenTime bounds a request for a token. It is within the time of the attempt.
	tokenTime = 30 * time.Second
	// renewalTime bounds a request for a token while the one before is still valid.
	renewalTime = 5 * time.Second
	// tokenPause is how long the failure to get a token is that of every attempt. So an endpoint for
	// tokens that is down gets a request a second, whatever waits.
	tokenPause = time.Second
	// mostToken bounds a token, in bytes. Servers reject larger headers.
	mostToken = 32 << 10
	// rejectionsInRow is how many fresh tokens a receiver may reject until it is taken for granted
	// that others are rejected, too. The last one is then kept for rejectedFor.
	rejectionsInRow = 3
	rejectedFor     = 10 * time.Second
)

// prepareOAuth sets the issuer. It also runs if the URL could not be parsed, to report faults.
func (ep *Endpoint) prepareOAuth(o trigger.OAuth2, source trigger.Source) error {
	if o.IsZero() {
		return nil
	}
	var problems []error
	a := &issuer{grant: grant{tls: ep.tls}}
	a.grant.tls.beside = ep.tls != tlsFiles{}
	for _, f := range []struct {
		key, value string
		to         *string
	}{
		{"oauth2.token_url", o.TokenURL, &a.grant.tokenURL}, {"oauth2.client_id", o.ClientID, &a.grant.clientID},
		{"oauth2.client_secret", o.ClientSecret, &a.grant.clientSecret}, {"oauth2.audience", o.Audience, &a.grant.audience},
		{"oauth2.scopes", strings.Join(o.Scopes, " "), &a.grant.scopes},
	} {
		value, err := ep.expand(f.key, f.value, source)
		if err == nil && value == "" && f.key != "oauth2.audience" && f.key != "oauth2.scopes" {
			err = fmt.Errorf("%s is empty", f.key)
		}
		problems = append(problems, err)
		*f.to = value
	}
	if errors.Join(problems...) != nil {
		return errors.Join(problems...)
	}
	var err error
	if a.url, err = parseURL(a.grant.tokenURL); err != nil {
		return fmt.Errorf("oauth2.token_url %q %w", showURL(o.TokenURL), err)
	}
	if a.url.User != nil {
		return fmt.Errorf("oauth2.token_url %q has a user or a password: write them as client_id and client_secret", showURL(o.TokenURL))
	}
	a.host = a.url.Scheme + "://" + a.url.Host
	ep.scrub.add(a.grant.clientSecret, redacted)
	ep.scrub.add(basic(a.grant.clientID, a.grant.clientSecret), redacted)
	if len(ep.header["Authorization"]) > 0 || ep.given["Authorization"] {
		return errors.New("oauth2 sets the header Authorization, which the url or headers set, too: remove one of the two")
	}
	ep.issuer = a
	return nil
}

// basic is how a client's credentials are in a header (RFC 6749, section 2.3.1).
func basic(id, secret string) string {
	return base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id) + ":" + url.QueryEscape(secret)))
}

// token is what a token endpoint gave.
type token struct {
	header  string // the value of Authorization
	secret  string // the token alone
	fetched time.Time
	renew   time.Time // from then on it is renewed; zero: never
	ends    time.Time // zero: nobody knows
}

func (t *token) over(now time.Time) bool { return !t.ends.IsZero() && !now.Before(t.ends) }
func (t *token) old(now time.Time) bool  { return !t.renew.IsZero() && !now.Before(t.renew) }

// tokens keeps the token of a grant, and fetches others one at a time.
type tokens struct {
	turn      chan struct{} // whoever has put into it fetches
	rejected  atomic.Int32  // fresh tokens that were rejected in a row
	mu        sync.Mutex
	current   *token // nil: none
	problem   *tokenError
	failed    time.Time // when problem came
	style     oauth2.AuthStyle
	lastAsked time.Time
}

// tokenError says why there is no token.
type tokenError struct {
	text       string
	retryAfter time.Duration // what the token endpoint asked for; 0: nothing
}

func (e *tokenError) Error() string { return e.text }

// idleTokens is how long the tokens of a grant that nobody uses are kept.
const idleTokens = time.Hour

// tokensOf returns the tokens of a grant.
func (c *Client) tokensOf(g grant) *tokens {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	t := c.tokens[g]
	if t == nil {
		maps.DeleteFunc(c.tokens, func(_ grant, t *tokens) bool { return now.Sub(t.lastAsked) > idleTokens })
		t = &tokens{turn: make(chan struct{}, 1)}
		if c.tokens == nil {
			c.tokens = map[grant]*tokens{}
		}
		c.tokens[g] = t
	}
	t.lastAsked = now
	return t
}

// state returns the current token, and the last failure if it is too recent to ask again.
func (k *tokens) state(now time.Time) (current *token, problem *tokenError) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.problem != nil && now.Sub(k.failed) < tokenPause {
		problem = k.problem
	}
	return k.current, problem
}

// token returns a token. It fetches one if there is none, or if it is time to renew the one that
// there is. While one is fetched, others wait for it, or use the one before while that is valid.
func (c *Client) token(ctx context.Context, ep *Endpoint, k *tokens, deadline time.Time) (*token, error) {
	current, problem := k.state(time.Now())
	now := time.Now()
	usable := current != nil && !current.over(now)
	switch {
	case usable && (!current.old(now) || problem != nil):
		return current, nil
	case usable:
		select {
		case k.turn <- struct{}{}:
		default:
			return current, nil
		}
	case problem != nil:
		return nil, problem
	default:
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case k.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return nil, &tokenError{text: fmt.Sprintf("no token from %s within %s", ep.issuer.host, trigger.Duration(ep.timeout))}
		}
	}
	defer func() { <-k.turn }()
	now = time.Now()
	latest, problem := k.state(now)
	switch {
	case latest != current && latest != nil && !latest.over(now): // fetched meanwhile
		return latest, nil
	case problem != nil && !usable:
		return nil, problem
	case problem != nil:
		return current, nil
	}
	until := now.Add(tokenTime)
	if usable {
		until = now.Add(renewalTime)
	}
	if deadline.Before(until) {
		until = deadline
	}
	fetched, err := c.fetchToken(ctx, ep, k, until)
	switch {
	case err == nil:
		return fetched, nil
	case usable:
		return current, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, err
}

// fetchToken fetches a token and keeps it. k.turn is the caller's.
func (c *Client) fetchToken(ctx context.Context, ep *Endpoint, k *tokens, until time.Time) (*token, error) {
	a := ep.issuer
	styles := []oauth2.AuthStyle{k.style}
	if k.style == oauth2.AuthStyleAutoDetect {
		// Every server has to accept the header. Some accept parameters alone.
		styles = []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams}
	}
	var given *oauth2.Token
	var err error
	for _, style := range styles {
		if given, err = c.requestToken(ctx, ep, style, until); err == nil {
			k.style = style
			break
		}
		var answer *oauth2.RetrieveError
		if !errors.As(err, &answer) || answer.Response == nil || answer.Response.StatusCode != http.StatusUnauthorized && answer.Response.StatusCode != http.StatusBadRequest {
			break
		}
	}
	now := time.Now()
	var t *token
	var problem *tokenError
	if err == nil {
		t, problem = a.take(given, now)
	} else {
		problem = a.explain(ep, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case problem == nil:
		k.current, k.problem = t, nil
		return t, nil
	case ctx.Err() == nil: // else it is no fault of the token endpoint
		k.problem, k.failed = problem, now
	}
	return nil, problem
}

// requestToken makes one request for a token.
func (c *Client) requestToken(ctx context.Context, ep *Endpoint, style oauth2.AuthStyle, until time.Time) (*oauth2.Token, error) {
	a := ep.issuer
	transport, err := c.transportFor(ep, a.grant.tls)
	if err != nil {
		return nil, err
	}
	config := clientcredentials.Config{
		ClientID: a.grant.clientID, ClientSecret: a.grant.clientSecret, TokenURL: a.grant.tokenURL, Scopes: strings.Fields(a.grant.scopes), AuthStyle: style,
	}
	if a.grant.audience != "" {
		config.EndpointParams = url.Values{"audience": {a.grant.audience}}
	}
	timed, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	client := &http.Client{
		Transport:     agentTransport{transport, c.agent},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	// The dialer finds the deadline as a value: see attemptContext.
	return config.Token(context.WithValue(context.WithValue(timed, deadlineKey{}, until), oauth2.HTTPClient, client))
}

// agentTransport names Rowhook in requests for tokens.
type agentTransport struct {
	http.RoundTripper
	agent string
}

func (t agentTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", t.agent)
	req.Header.Set("Accept", "application/json")
	return t.RoundTripper.RoundTrip(req)
}

// take makes a token of what the token endpoint gave. It is renewed after 80 to 90 percent of its
// life, at a time of its own, so that not all dispatchers do so at once.
func (a *issuer) take(given *oauth2.Token, now time.Time) (*token, *tokenError) {
	t := &token{header: given.Type() + " " + given.AccessToken, secret: given.AccessToken, fetched: now}
	switch {
	case len(t.header) > mostToken:
		return nil, &tokenError{text: fmt.Sprintf("%s gave a token of %d bytes, more than %d", a.host, len(given.AccessToken), mostToken)}
	case !httpguts.ValidHeaderFieldValue(t.header) || strings.ContainsAny(given.Type(), " ,"):
		return nil, &tokenError{text: a.host + " gave a token that no header can hold"}
	}
	if life := given.Expiry.Sub(now); !given.Expiry.IsZero() {
		t.ends = given.Expiry.Add(-min(life/20, 10*time.Second)) // a request takes a while, and clocks differ
		early := life/10 + rand.N(max(life/10, 1))               //nolint:gosec // no secret
		t.renew = given.Expiry.Add(-early)
	}
	return t, nil
}

// errorCode is the form of the codes of RFC 6749.
var errorCode = regexp.MustCompile(`^[a-z0-9_.-]{1,60}$`)

// explain says why a token could not be fetched. It holds nothing of what may be a token.
func (a *issuer) explain(ep *Endpoint, err error) *tokenError {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) || answer.Response == nil {
		if strings.HasPrefix(err.Error(), "oauth2: ") { // a 2xx answer without a token in it
			return &tokenError{text: a.host + " answered with no token that can be read"}
		}
		kind := Classify(err)
		if cause := (*url.Error)(nil); errors.As(err, &cause) {
			err = cause.Err // the text has the method and the URL
		}
		if kind == KindTimeout {
			return &tokenError{text: "no token from " + a.host + " in time"}
		}
		return &tokenError{text: ep.scrub.text(describe(err, kind, a.url.Host))}
	}
	e := &tokenError{text: a.host + " answered " + cmp.Or(answer.Response.Status, "without a status")}
	if answer.Response.StatusCode/100 == 3 {
		e.text += ": redirects are not followed"
	}
	if errorCode.MatchString(answer.ErrorCode) {
		e.text += ": " + answer.ErrorCode
		if answer.ErrorDescription != "" {
			e.text += " (" + answer.ErrorDescription + ")"
		}
	}
	e.text = ep.scrub.text(oneLine(e.text))
	e.retryAfter, _ = retryAfter(answer.Response.Header, time.Now())
	return e
}

// exchangeAuthorized is exchange with a token. If the receiver rejects the token, a new one is
// fetched, and the request is sent once more.
func (c *Client) exchangeAuthorized(ctx context.Context, ep *Endpoint, m made, s *scratch, r *Result) {
	k := c.tokensOf(ep.issuer.grant)
	for again := false; ; again = true {
		t, err := c.token(ctx, ep, k, r.StartedAt.Add(ep.timeout))
		if err != nil {
			if !again {
				failToken(ctx, ep, err, r)
			} else if ctx.Err() == nil {
				r.Err = ep.scrub.text(r.Err + "; token: no other one: " + err.Error())
			}
			return
		}
		authorized := ep.withToken(t)
		s.most = max(s.most, c.keep+authorized.scrub.longest())
		with := m
		with.header = maps.Clone(m.header)
		with.header["Authorization"] = []string{t.header}
		*r = Result{StartedAt: r.StartedAt}
		c.exchangeOnce(ctx, authorized, with, s, r)
		if r.Status != http.StatusUnauthorized {
			if r.Status != 0 && k.rejected.Load() != 0 {
				k.rejected.Store(0)
			}
			return
		}
		if again {
			k.rejected.Add(1)
		}
		if !k.reject(t) || again {
			r.Err = "token: " + r.Err
			return
		}
	}
}

// reject takes a token out of use that a receiver has rejected. It reports false if the token is kept:
// several fresh ones were rejected already, so it is probably no fault of the token.
func (k *tokens) reject(t *token) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rejected.Load() >= rejectionsInRow && time.Since(t.fetched) < rejectedFor {
		return false
	}
	if k.current == t {
		k.current = nil
	}
	return true
}

// failToken sets the result of an attempt for which there is no token.
func failToken(ctx context.Context, ep *Endpoint, err error, r *Result) {
	if ctx.Err() != nil {
		r.Kind, r.Err = KindCanceled, ep.scrub.text(describeCancel(ctx))
		return
	}
	r.Kind, r.Err = KindToken, ep.scrub.text("token: "+err.Error())
	var why *tokenError
	if errors.As(err, &why) && why.retryAfter > 0 {
		r.RetryAfter, r.HasRetryAfter = why.retryAfter, true
	}
}

// withToken returns the endpoint as it is while a token is sent: what repeats the token is scrubbed.
func (ep *Endpoint) withToken(t *token) *Endpoint {
	authorized := *ep
	authorized.cached = &atomic.Pointer[agentHeader]{}
	authorized.scrub = ep.scrub.clone()
	authorized.scrub.add(t.secret, redacted)
	return &authorized
}
