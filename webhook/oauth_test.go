package webhook

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// tokenServer issues the tokens token-1, token-2, ... as an endpoint for tokens does.
type tokenServer struct {
	*httptest.Server
	issued atomic.Int32
	asked  atomic.Int32
	answer func(n int32, w http.ResponseWriter, r *http.Request) bool // true: it has answered
	life   int                                                        // in seconds; 0: it is not said

	mu   sync.Mutex
	last *http.Request
	form url.Values
}

func newTokenServer(t testing.TB) *tokenServer {
	s := &tokenServer{life: 3600}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.asked.Add(1)
	_ = r.ParseForm()
	s.mu.Lock()
	s.last, s.form = r, r.PostForm
	answer := s.answer
	s.mu.Unlock()
	if answer != nil && answer(n, w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	given := map[string]any{"access_token": fmt.Sprintf("token-%d", s.issued.Add(1)), "token_type": "bearer"}
	if s.life > 0 {
		given["expires_in"] = s.life
	}
	_ = json.NewEncoder(w).Encode(given)
}

func (s *tokenServer) respond(f func(n int32, w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *tokenServer) asks() (*http.Request, url.Values) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.form
}

func (s *tokenServer) grant() trigger.OAuth2 {
	return trigger.OAuth2{TokenURL: s.URL + "/token", ClientID: "rowhook", ClientSecret: "${CLIENT_SECRET}"}
}

const clientSecret = "client hunter2&"

func authorized(t testing.TB, s *tokenServer, to string, change ...func(*trigger.Webhook)) *Endpoint {
	w := trigger.Webhook{URL: to, Timeout: trigger.Duration(time.Minute), OAuth2: s.grant()}
	for _, f := range change {
		f(&w)
	}
	return endpoint(t, w, "CLIENT_SECRET", clientSecret)
}

// protected accepts requests with the token that valid returns.
func protected(t testing.TB, valid func(string) bool) (*httptest.Server, *atomic.Int32) {
	var requests atomic.Int32
	return receiver(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); !valid(token) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "not "+token)
			return
		}
		_, _ = io.ReadAll(r.Body)
	}), &requests
}

func anyToken(string) bool { return true }

func TestARequestCarriesATokenThatIsFetchedOnce(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	to, requests := protected(t, func(token string) bool { return token == "token-1" })
	c := newClient(t, ClientConfig{Version: "v1"})
	ep := authorized(t, tokens, to.URL, func(w *trigger.Webhook) {
		w.OAuth2.Scopes, w.OAuth2.Audience = []string{"orders.write", "orders.read"}, "https://api.example.com"
	})
	require.NoError(t, c.Prepare(ep))
	for range 3 {
		r := c.Send(t.Context(), ep, &Event{}, nil)
		require.True(t, r.Delivered(), r.Err)
	}
	r, failed := c.SendBatch(t.Context(), ep, []*Event{{}, {}})
	require.True(t, r.Delivered(), r.Err)
	require.Empty(t, failed)
	require.EqualValues(t, 4, requests.Load())
	require.EqualValues(t, 1, tokens.asked.Load())

	asked, form := tokens.asks()
	require.Equal(t, url.Values{"grant_type": {"client_credentials"}, "scope": {"orders.write orders.read"}, "audience": {"https://api.example.com"}}, form)
	id, secret, ok := asked.BasicAuth()
	require.True(t, ok)
	require.Equal(t, "rowhook "+url.QueryEscape(clientSecret), id+" "+secret)
	require.Equal(t, "Rowhook/v1", asked.UserAgent())
}

func TestAnEndpointForTokensThatWantsParametersGetsThem(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	tokens.respond(func(_ int32, w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			return false
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error": "invalid_client"}`)
		return true
	})
	to, _ := protected(t, anyToken)
	c := newClient(t, ClientConfig{})
	ep := authorized(t, tokens, to.URL)
	r := c.Send(t.Context(), ep, &Event{}, nil)
	require.True(t, r.Delivered(), r.Err)
	_, form := tokens.asks()
	require.Equal(t, clientSecret, form.Get("client_secret"))
	c.tokensOf(ep.issuer.grant).current = nil
	require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
	require.EqualValues(t, 3, tokens.asked.Load(), "what the endpoint accepts is remembered")
}

func delivered(r Result) bool { return r.Delivered() }

func TestManyAttemptsFetchOneToken(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	hold := make(chan struct{})
	tokens.respond(func(int32, http.ResponseWriter, *http.Request) bool { <-hold; return false })
	to, requests := protected(t, func(token string) bool { return token == "token-1" })
	c := newClient(t, ClientConfig{})
	var attempts sync.WaitGroup
	for i := range 50 {
		// Another trigger with the same settings, whose URL is another one.
		ep := authorized(t, tokens, fmt.Sprintf("%s/%d", to.URL, i%5))
		attempts.Go(func() {
			r := c.Send(t.Context(), ep, &Event{}, nil)
			if !r.Delivered() {
				t.Error(r.Err)
			}
		})
	}
	require.Eventually(t, func() bool { return tokens.asked.Load() == 1 }, time.Minute, time.Millisecond)
	close(hold)
	attempts.Wait()
	require.EqualValues(t, 1, tokens.asked.Load())
	require.EqualValues(t, 50, requests.Load())
}

func TestOtherSettingsHaveOtherTokens(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	to, _ := protected(t, anyToken)
	c := newClient(t, ClientConfig{})
	for i, change := range []func(*trigger.Webhook){
		func(*trigger.Webhook) {}, func(w *trigger.Webhook) { w.OAuth2.Audience = "other" }, func(w *trigger.Webhook) { w.OAuth2.Scopes = []string{"a"} },
		func(w *trigger.Webhook) { w.OAuth2.ClientSecret = "rotated" }, func(w *trigger.Webhook) { w.OAuth2.ClientID = "other" }, func(w *trigger.Webhook) { w.OAuth2.TokenURL += "2" },
	} {
		ep := authorized(t, tokens, to.URL, change)
		for range 2 {
			require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
		}
		require.EqualValues(t, i+1, tokens.asked.Load())
	}
}

func TestARejectedTokenIsReplacedAndTheRequestSentOnceMore(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	var valid atomic.Value
	valid.Store("token-1")
	to, requests := protected(t, func(token string) bool { return token == valid.Load() })
	c := newClient(t, ClientConfig{})
	ep := authorized(t, tokens, to.URL)
	require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
	valid.Store("token-2")
	r := c.Send(t.Context(), ep, &Event{}, nil)
	require.True(t, r.Delivered(), r.Err)
	require.Empty(t, r.Err)
	require.EqualValues(t, 3, requests.Load())
	require.EqualValues(t, 2, tokens.asked.Load())
	require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
	require.EqualValues(t, 2, tokens.asked.Load())

	// One more request, then it is a failure.
	valid.Store("none")
	r = c.Send(t.Context(), ep, &Event{}, nil)
	require.Equal(t, http.StatusUnauthorized, r.Status)
	require.Equal(t, "token: answered 401 Unauthorized", r.Err)
	require.Equal(t, "not <redacted>", string(r.Body))
	require.EqualValues(t, 6, requests.Load())
	require.EqualValues(t, 3, tokens.asked.Load())
}

func TestAReceiverThatRejectsEveryTokenCostsFewTokens(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	to, _ := protected(t, func(string) bool { return false })
	c := newClient(t, ClientConfig{})
	ep := authorized(t, tokens, to.URL)
	for range 50 {
		require.Equal(t, http.StatusUnauthorized, c.Send(t.Context(), ep, &Event{}, nil).Status)
	}
	require.LessOrEqual(t, tokens.asked.Load(), int32(2*rejectionsInRow+1))
}

func TestATokenIsRenewedBeforeItEndsAndAtATimeOfItsOwn(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	to, _ := protected(t, anyToken)
	c := newClient(t, ClientConfig{})
	ep := authorized(t, tokens, to.URL)
	times := map[time.Duration]bool{}
	for range 5 {
		c.tokensOf(ep.issuer.grant).current = nil
		require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
		got := c.tokensOf(ep.issuer.grant).current
		early := got.ends.Sub(got.renew)
		require.Greater(t, early, 5*time.Minute)
		require.Less(t, early, 13*time.Minute)
		require.Less(t, got.ends.Sub(got.fetched), time.Hour)
		times[early.Round(time.Second)] = true
	}
	require.Greater(t, len(times), 1)

	// While it is renewed, it goes on being used, also if there is no other one.
	k := c.tokensOf(ep.issuer.grant)
	age := func() { k.mu.Lock(); k.current.renew = time.Now().Add(-time.Second); k.mu.Unlock() }
	age()
	tokens.respond(func(_ int32, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	before := tokens.asked.Load()
	failed := func(ago time.Duration) { k.mu.Lock(); k.failed = time.Now().Add(-ago); k.mu.Unlock() }
	for range 3 {
		require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
		failed(0)
	}
	require.Equal(t, before+1, tokens.asked.Load(), "one request a second")
	tokens.respond(nil)
	failed(tokenPause)
	was := k.current.secret
	require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
	require.NotEqual(t, was, k.current.secret)
}

func TestATokenThatHasEndedIsNotSent(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	to, _ := protected(t, func(token string) bool { return token == fmt.Sprintf("token-%d", tokens.issued.Load()) })
	c := newClient(t, ClientConfig{})
	ep := authorized(t, tokens, to.URL)
	require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
	k := c.tokensOf(ep.issuer.grant)
	k.mu.Lock()
	k.current.ends = time.Now().Add(-time.Millisecond)
	k.mu.Unlock()
	tokens.respond(func(_ int32, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	r := c.Send(t.Context(), ep, &Event{}, nil)
	require.Equal(t, KindToken, r.Kind)
	tokens.respond(nil)
	k.failed = time.Time{}
	require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))

	// One without an end is used until it is rejected.
	tokens.life = 0
	k.current = nil
	require.True(t, delivered(c.Send(t.Context(), ep, &Event{}, nil)))
	require.True(t, k.current.ends.IsZero())
	require.False(t, k.current.old(time.Now().Add(10000*time.Hour)))
}

func TestWithoutATokenAnAttemptFailsAndSaysWhy(t *testing.T) {
	t.Parallel()
	status := func(status int, header, body string) func(int32, http.ResponseWriter, *http.Request) bool {
		return func(_ int32, w http.ResponseWriter, _ *http.Request) bool {
			if name, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	const json = "Content-Type: application/json"
	credentials := base64.StdEncoding.EncodeToString([]byte("rowhook:" + url.QueryEscape(clientSecret)))
	for name, c := range map[string]struct {
		answer func(int32, http.ResponseWriter, *http.Request) bool
		want   string
	}{
		"refusal":     {status(401, json, `{"error": "invalid_client", "error_description": "no `+clientSecret+" nor "+credentials+`"}`), "answered 401 Unauthorized: invalid_client (no ${CLIENT_SECRET} nor <redacted>)"},
		"a page":      {status(500, "", "<html>"+clientSecret), "answered 500 Internal Server Error"},
		"a redirect":  {status(302, "Location: http://127.0.0.1:1/", ""), "answered 302 Found: redirects are not followed"},
		"no token":    {status(200, json, `{"token": "leaked-token"}`), "answered with no token that can be read"},
		"no JSON":     {status(200, json, `leaked-token`), "answered with no token that can be read"},
		"a bad token": {status(200, json, `{"access_token": "leaked-token\nX: y"}`), "gave a token that no header can hold"},
		"a large one": {status(200, json, `{"access_token": "leaked-token`+strings.Repeat("x", 40000)+`"}`), "gave a token of 40012 bytes, more than 32768"},
		"an odd type": {status(200, json, `{"access_token": "leaked-token", "token_type": "a b"}`), "gave a token that no header can hold"},
		"an odd code": {status(400, json, `{"error": "leaked-token has blanks"}`), "answered 400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tokens := newTokenServer(t)
			tokens.respond(c.answer)
			to, requests := protected(t, anyToken)
			client := newClient(t, ClientConfig{})
			r := client.Send(t.Context(), authorized(t, tokens, to.URL), &Event{}, nil)
			require.Equal(t, KindToken, r.Kind)
			require.Equal(t, "token: "+tokens.URL+" "+c.want, r.Err)
			require.Zero(t, r.Status)
			require.False(t, r.Connected)
			require.Zero(t, requests.Load())
			require.NotContains(t, r.Err, "hunter2")
			require.NotContains(t, r.Err, "leaked")
		})
	}
	tokens := newTokenServer(t)
	tokens.respond(status(503, "Retry-After: 7", ""))
	to, _ := protected(t, anyToken)
	r := newClient(t, ClientConfig{}).Send(t.Context(), authorized(t, tokens, to.URL), &Event{}, nil)
	require.True(t, r.HasRetryAfter)
	require.Equal(t, 7*time.Second, r.RetryAfter)

	tokens.Close()
	r = newClient(t, ClientConfig{}).Send(t.Context(), authorized(t, tokens, to.URL), &Event{}, nil)
	require.Equal(t, "token: connection refused by "+tokens.Listener.Addr().String(), r.Err)
}

func TestATokenIsFetchedWithinTheTimeOfTheAttempt(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	tokens.respond(func(_ int32, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	to, _ := protected(t, anyToken)
	c := newClient(t, ClientConfig{})
	ep := authorized(t, tokens, to.URL, func(w *trigger.Webhook) { w.Timeout = trigger.Duration(100 * time.Millisecond) })
	r := c.Send(t.Context(), ep, &Event{}, nil)
	require.Equal(t, KindToken, r.Kind)
	require.Equal(t, "token: no token from "+tokens.URL+" in time", r.Err)
	// For a second nobody asks again.
	require.Equal(t, r.Err, c.Send(t.Context(), ep, &Event{}, nil).Err)
	require.EqualValues(t, 1, tokens.asked.Load())

	ctx, cancel := context.WithCancel(t.Context())
	patient := authorized(t, tokens, to.URL, func(w *trigger.Webhook) { w.OAuth2.Audience = "other" })
	time.AfterFunc(50*time.Millisecond, cancel)
	r = c.Send(ctx, patient, &Event{}, nil)
	require.Equal(t, KindCanceled, r.Kind)
	_, problem := c.tokensOf(patient.issuer.grant).state(time.Now())
	require.Nil(t, problem, "whoever stops says nothing of the endpoint")
}

func TestRequestsForTokensKeepToTheGuard(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	to, _ := protected(t, anyToken)
	c := newClient(t, ClientConfig{Guard: Guard{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	r := c.Send(t.Context(), authorized(t, tokens, to.URL), &Event{}, nil)
	require.Equal(t, KindToken, r.Kind)
	require.Contains(t, r.Err, "127.0.0.1")
	require.Zero(t, tokens.asked.Load())
}

func TestTheAuthoritiesOfAWebhookAreTrustedForItsTokens(t *testing.T) {
	t.Parallel()
	tokens := &tokenServer{life: 60}
	tokens.Server = httptest.NewTLSServer(tokens)
	t.Cleanup(tokens.Close)
	to := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(to.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: to.Certificate().Raw}), 0o600))
	c := newClient(t, ClientConfig{})
	quiet(tokens.Server)
	r := c.Send(t.Context(), authorized(t, tokens, to.URL), &Event{}, nil)
	require.Equal(t, "token: certificate signed by unknown authority", r.Err)
	ep := authorized(t, tokens, to.URL, func(w *trigger.Webhook) { w.TLS.CAFile = file })
	require.NoError(t, c.Prepare(ep))
	r = c.Send(t.Context(), ep, &Event{}, nil)
	require.True(t, r.Delivered(), r.Err)
}

func TestATokenIsShownNowhere(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	to := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		w.Header().Set("X-Echo", "got "+token)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, strings.Repeat("x", DefaultKeepBody-4)+token) // straddles what is kept
	})
	c := newClient(t, ClientConfig{})
	ep := authorized(t, tokens, to.URL)
	r := c.Send(t.Context(), ep, &Event{}, nil)
	require.Equal(t, 500, r.Status)
	require.NotContains(t, string(r.Header), "token-1")
	require.Contains(t, string(r.Header), "got <redacted>")
	require.NotContains(t, string(r.Body), "toke")
	shown, err := c.Preview(ep, &Event{})
	require.NoError(t, err)
	require.Contains(t, string(shown.Header), `"Authorization":"<redacted>"`)
	require.NotContains(t, string(shown.Header), "token-1")
}

func TestAnEndpointWithAMalformedGrantSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := trigger.OAuth2{TokenURL: "https://auth.example.com/t", ClientID: "id", ClientSecret: "${S}"}
	for want, change := range map[string]func(*trigger.Webhook){
		`oauth2.client_secret: environment variable GONE is not set`:        func(w *trigger.Webhook) { w.OAuth2.ClientSecret = "${GONE}" },
		`oauth2.client_id is empty`:                                         func(w *trigger.Webhook) { w.OAuth2.ClientID = "" },
		`oauth2.token_url "ftp://a" has a scheme other than http and https`: func(w *trigger.Webhook) { w.OAuth2.TokenURL = "ftp://a" },
		`has a user or a password`:                                          func(w *trigger.Webhook) { w.OAuth2.TokenURL = "https://a:hidden@b" },
		`oauth2 sets the header Authorization`:                              func(w *trigger.Webhook) { w.Headers = map[string]string{"authorization": "x"} },
	} {
		w := trigger.Webhook{URL: "https://example.com", OAuth2: good}
		change(&w)
		_, err := NewEndpoint(w, env("S", "hidden"))
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hidden")
	}
}

// TestATokenAndItsSecretGoNowhereElse has a receiver and an endpoint for tokens that send whoever asks to
// somebody else, by each status of a redirect, and what is printed of the request.
func TestATokenAndItsSecretGoNowhereElse(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var heard []string
	thief := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, fmt.Sprint(r.URL, r.Header, string(body)))
	})
	for _, status := range []int{301, 302, 303, 307, 308} {
		away := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL+"/stolen", status) }
		tokens := newTokenServer(t)
		c := newClient(t, ClientConfig{})
		ep := authorized(t, tokens, receiver(t, away).URL)
		require.NoError(t, c.Prepare(ep))
		r := c.Send(t.Context(), ep, &Event{}, nil)
		require.False(t, r.Delivered(), status)
		require.NotContains(t, fmt.Sprint(r.Err, string(r.Header), string(r.Body)), "token-1")

		tokens = newTokenServer(t)
		tokens.respond(func(_ int32, w http.ResponseWriter, r *http.Request) bool { away(w, r); return true })
		to, requests := protected(t, anyToken)
		r = c.Send(t.Context(), authorized(t, tokens, to.URL), &Event{}, nil)
		require.False(t, r.Delivered(), status)
		require.Zero(t, requests.Load(), "without a token nothing is sent")
		require.NotContains(t, fmt.Sprint(r.Err, string(r.Header), string(r.Body)), "hunter2")
	}
	w := trigger.Webhook{URL: thief.URL, OAuth2: trigger.OAuth2{TokenURL: "https://a.example.com/t", ClientID: "${ID}", ClientSecret: "plain hunter2"}}
	shown, headers, err := Unexpanded(w, &Event{}, false)
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprint(shown, headers, string(shown.Body), string(shown.Header)), "hunter2")
	mu.Lock()
	defer mu.Unlock()
	for _, text := range heard {
		require.NotContains(t, text, "token-")
		require.NotContains(t, text, "hunter2")
		require.NotContains(t, text, "Basic")
	}
}
