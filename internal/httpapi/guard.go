package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
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
	digest [sha256.Size]byte
	file   *access.TokenFile // has the token instead; nil: it does not change
}

// current returns the digest of the token.
func (b *bearer) current() [sha256.Size]byte {
	if b.file != nil {
		return b.file.Digest()
	}
	return b.digest
}

// nobody is who sends requests while no token is set. SQL needs a token, so it has not all scopes.
func nobody() *bearer {
	return &bearer{scopes: access.Status | access.Payloads | access.Steer, actor: "HTTP without a token"}
}

// guard decides which requests are allowed.
type guard struct {
	tokens  bool            // at least one token, or a file of tokens, is set: everybody needs one
	dev     bool            // rowhook dev has made a token, which allows more than is allowed without one
	unnamed []bearer        // of the variables
	named   *access.Keyring // nil: there is no file of tokens
}

func newGuard(cfg *Config) guard {
	g := guard{named: cfg.Tokens, tokens: cfg.Tokens != nil, dev: cfg.Dev != nil}
	if g.dev {
		g.unnamed = append(g.unnamed, bearer{scopes: access.All, actor: "HTTP with the token of rowhook dev", digest: access.Digest(cfg.Dev.Token)})
	}
	for _, t := range []struct {
		value  string
		file   *access.TokenFile
		actor  string
		scopes access.Scopes
	}{
		{cfg.WriteToken, cfg.WriteTokenFile, "HTTP with ROWHOOK_HTTP_TOKEN", access.All},
		{cfg.ReadToken, cfg.ReadTokenFile, "HTTP with ROWHOOK_HTTP_READ_TOKEN", access.Status | access.Payloads},
	} {
		if t.value != "" || t.file != nil {
			g.tokens = true
			g.unnamed = append(g.unnamed, bearer{scopes: t.scopes, actor: t.actor, digest: access.Digest(t.value), file: t.file})
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
	b, ended := g.bearer(r)
	switch {
	case need == public || b != nil && b.scopes.Has(need):
		return b, nil
	case b != nil:
		return nil, g.lacks(b, need)
	case ended != nil:
		return nil, ended
	}
	return nil, unauthorized("a valid token is required", "send the header Authorization: Bearer TOKEN")
}

func unauthorized(detail, remedy string) *Problem {
	return webapi.NewProblem(http.StatusUnauthorized, "unauthorized", detail, remedy).With("WWW-Authenticate", `Bearer realm="rowhook"`)
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

// bearer returns who sent a request; nil: it has no valid token. Then ended is set if it has one that
// is valid no longer. Tokens are compared by their digests in constant time.
func (g *guard) bearer(r *http.Request) (b *bearer, ended *Problem) {
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	text = strings.TrimSpace(text)
	ok = ok && strings.EqualFold(scheme, "Bearer")
	switch {
	case g.dev && ok && strings.HasPrefix(text, access.Prefix): // that of an earlier start is rejected, so that its bearer notices
		return g.find(access.Digest(text))
	case !g.tokens:
		return nobody(), nil
	case !ok:
		return nil, nil
	}
	return g.find(access.Digest(text))
}

// find returns whose token has a digest, as bearer does.
func (g *guard) find(digest [sha256.Size]byte) (b *bearer, ended *Problem) {
	for i := range g.unnamed {
		t := &g.unnamed[i]
		if current := t.current(); subtle.ConstantTimeCompare(digest[:], current[:]) == 1 && (b == nil || t.scopes > b.scopes) {
			b = t
		}
	}
	if b != nil || g.named == nil {
		return b, nil
	}
	t, ok := g.named.Find(digest)
	switch {
	case !ok:
		return nil, nil
	case t.Ended(time.Now()):
		return nil, unauthorized("the token "+t.Name+" has ended at "+t.Until.Format(time.RFC3339),
			"make a new one: rowhook token remove "+t.Name+", then rowhook token add "+t.Name+" --scope "+t.Scopes.String())
	}
	return &bearer{name: t.Name, scopes: t.Scopes, until: t.Until, actor: "token " + t.Name, digest: digest}, nil
}

// watchEvery is how often a stream looks whether its token is still valid.
const watchEvery = time.Second

// watch returns a context that ends when the token of a request is valid no longer, or has other
// scopes. The cause is a Problem then. stop waits until the watch has ended.
func (g *guard) watch(ctx context.Context, b *bearer) (watched context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	digest := b.digest
	if b.file != nil { // the token by which it was let in
		digest = b.file.Digest()
	}
	if b.name != "" || b.file != nil {
		watching.Go(func() {
			ticker := time.NewTicker(watchEvery)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				now, ended := g.find(digest)
				switch {
				case ended != nil:
					cancel(ended)
				case now == nil && b.file != nil:
					cancel(unauthorized("the token has changed", "use the new one"))
				case now == nil:
					cancel(unauthorized("the token "+b.name+" was removed", "use another one"))
				case now.scopes != b.scopes:
					cancel(unauthorized("the scopes of the token "+b.name+" have changed", "send the request again"))
				}
			}
		})
	}
	return ctx, func() {
		cancel(nil)
		watching.Wait()
	}
}

// lacks returns the problem of a bearer without a scope.
func (g *guard) lacks(b *bearer, need access.Scopes) *Problem {
	if g.dev && b.actor == nobody().actor {
		return webapi.NewProblem(http.StatusForbidden, "sql_needs_token", "this is only allowed with the token that rowhook dev has made",
			"open the dashboard by the URL that rowhook dev prints, or send that token: Authorization: Bearer TOKEN")
	}
	return b.lacks(need)
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
