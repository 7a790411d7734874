package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/webapi"
)

// access is a level of permission. Each level includes the ones below it.
type access int

const (
	public access = iota // health and the document, which reveal no data
	read
	write
)

// guard decides which requests are allowed.
type guard struct {
	tokens bool                          // at least one token is set
	digest map[access]*[sha256.Size]byte // SHA-256 of the tokens that are set
}

func newGuard(writeToken, readToken string) guard {
	g := guard{digest: map[access]*[sha256.Size]byte{}}
	for a, token := range map[access]string{write: writeToken, read: readToken} {
		if token != "" {
			sum := sha256.Sum256([]byte(token))
			g.digest[a], g.tokens = &sum, true
		}
	}
	return g
}

// check returns why a request lacks this access; nil: it has it.
func (g *guard) check(r *http.Request, need access) *Problem {
	if p := webapi.FromPage(r); p != nil {
		return p
	}
	if !g.tokens && !webapi.IsLoopback(webapi.Hostname(r.Host)) {
		return wrongHost()
	}
	if need == public || !g.tokens {
		return nil
	}
	switch has := g.access(r); {
	case has >= need:
		return nil
	case has == read:
		return webapi.NewProblem(http.StatusForbidden, "read_only", "this token allows reading only", "use the token in ROWHOOK_HTTP_TOKEN")
	}
	return webapi.NewProblem(http.StatusUnauthorized, "unauthorized", "a valid token is required", "send the header Authorization: Bearer TOKEN").
		With("WWW-Authenticate", `Bearer realm="rowhook"`)
}

func wrongHost() *Problem {
	return webapi.NewProblem(http.StatusForbidden, "wrong_host", "without a token the Host header must name this host",
		"use localhost or 127.0.0.1, or set ROWHOOK_HTTP_TOKEN")
}

// access returns what the request's token allows. Tokens are compared by their digests in constant
// time.
func (g *guard) access(r *http.Request) access {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return public
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	has := public
	for a, digest := range g.digest {
		if subtle.ConstantTimeCompare(sum[:], digest[:]) == 1 {
			has = max(has, a)
		}
	}
	return has
}

// actor returns who sent the request, for the audit.
func (g *guard) actor(r *http.Request) queue.Actor {
	name := "HTTP without a token"
	if g.access(r) >= write {
		name = "HTTP with ROWHOOK_HTTP_TOKEN"
	}
	return queue.Actor{Name: name, Client: webapi.Hostname(r.RemoteAddr)}
}

// may reports whether a request has this access.
func (g *guard) may(r *http.Request, need access) bool { return g.check(r, need) == nil }
