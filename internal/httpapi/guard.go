package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/webapi"
)

// public is the scope of routes that everyone may ask: health and the document, which reveal no data.
const public access.Scopes = 0

// bearer is who sent a request.
type bearer struct {
	name   string // of its token; "": the token has no name, or there is none
	scopes access.Scopes
	until  time.Time // when its token ends; zero: never
	actor  string    // what the audit calls it
}

// nobody is who sends requests while no token is set. SQL needs a token, so it has not all scopes.
func nobody() *bearer {
	return &bearer{scopes: access.Status | access.Payloads | access.Steer, actor: "HTTP without a token"}
}

// guard decides which requests are allowed.
type guard struct {
	tokens  bool    // at least one token is set
	unnamed []token // of the variables
}

// token is a token of a variable.
type token struct {
	digest [sha256.Size]byte // SHA-256 of the token
	bearer
}

func newGuard(cfg *Config) guard {
	var g guard
	for _, t := range []struct {
		value, actor string
		scopes       access.Scopes
	}{
		{cfg.WriteToken, "HTTP with ROWHOOK_HTTP_TOKEN", access.All},
		{cfg.ReadToken, "HTTP with ROWHOOK_HTTP_READ_TOKEN", access.Status | access.Payloads},
	} {
		if t.value != "" {
			g.tokens = true
			g.unnamed = append(g.unnamed, token{sha256.Sum256([]byte(t.value)), bearer{scopes: t.scopes, actor: t.actor}})
		}
	}
	return g
}

// check returns who sent a request, or why the request lacks this scope.
func (g *guard) check(r *http.Request, need access.Scopes) (*bearer, *Problem) {
	if p := webapi.FromOtherPage(r); p != nil {
		return nil, p
	}
	if p := g.checkHost(r); p != nil {
		return nil, p
	}
	b := g.bearer(r)
	switch {
	case need == public || b != nil && b.scopes.Has(need):
		return b, nil
	case b == nil:
		return nil, webapi.NewProblem(http.StatusUnauthorized, "unauthorized", "a valid token is required", "send the header Authorization: Bearer TOKEN").
			With("WWW-Authenticate", `Bearer realm="rowhook"`)
	}
	return nil, b.lacks(need)
}

// checkHost rejects requests for other hosts while there is no token: with DNS rebinding a page of
// another host is of the same origin.
func (g *guard) checkHost(r *http.Request) *Problem {
	if g.tokens || webapi.IsLoopback(webapi.Hostname(r.Host)) {
		return nil
	}
	return webapi.NewProblem(http.StatusForbidden, "wrong_host", "without a token the Host header must name this host",
		"use localhost or 127.0.0.1, or set ROWHOOK_HTTP_TOKEN")
}

// bearer returns who sent a request; nil: it has no valid token. Tokens are compared by their
// digests in constant time.
func (g *guard) bearer(r *http.Request) *bearer {
	if !g.tokens {
		return nobody()
	}
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(text)))
	var found *bearer
	for i := range g.unnamed {
		if t := &g.unnamed[i]; subtle.ConstantTimeCompare(sum[:], t.digest[:]) == 1 && (found == nil || t.scopes > found.scopes) {
			found = &t.bearer
		}
	}
	return found
}

// lacks returns the problem of a bearer without a scope.
func (b *bearer) lacks(need access.Scopes) *Problem {
	missing := (need &^ b.scopes).String()
	switch {
	case b.name == "" && b.scopes.Has(access.Status|access.Payloads) && !b.scopes.Has(access.Steer):
		return webapi.NewProblem(http.StatusForbidden, "read_only", "this token allows reading only", "use the token in ROWHOOK_HTTP_TOKEN")
	case b.actor == nobody().actor:
		return webapi.NewProblem(http.StatusForbidden, "sql_needs_token", "SQL is accepted only with a token", "set ROWHOOK_HTTP_TOKEN and send it, or use the command line")
	}
	return webapi.NewProblem(http.StatusForbidden, "scope", "this token lacks the scope "+missing,
		"use another token: rowhook token add NAME --scope "+missing+" makes one")
}

type bearerKey struct{}

// bearerOf returns who sent the request of ctx.
func bearerOf(ctx context.Context) *bearer {
	b, _ := ctx.Value(bearerKey{}).(*bearer)
	return b
}

// by returns the request with who has sent it, for handlers and for the audit.
func (b *bearer) by(r *http.Request) *http.Request {
	ctx := context.WithValue(r.Context(), bearerKey{}, b)
	return r.WithContext(queue.WithActor(ctx, queue.Actor{Name: b.actor, Client: webapi.Hostname(r.RemoteAddr)}))
}

// require returns a problem if the request's token lacks a scope that its route does not always
// need.
func require(r *http.Request, need access.Scopes) error {
	if b := bearerOf(r.Context()); !b.scopes.Has(need) {
		return b.lacks(need)
	}
	return nil
}
