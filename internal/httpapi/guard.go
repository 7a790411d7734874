package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"

	"github.com/rowhook/rowhook/internal/queue"
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
	// Browsers mark the requests of web pages by these headers. No page has a reason to send
	// requests here, even if DNS rebinding gave it this address.
	if site := r.Header.Get("Sec-Fetch-Site"); r.Header.Get("Origin") != "" || site == "cross-site" || site == "same-site" {
		return newProblem(http.StatusForbidden, "cross_origin", "requests of web pages are rejected", "send the request from a program or from your server")
	}
	if !g.tokens && !isLoopback(hostname(r.Host)) {
		return newProblem(http.StatusForbidden, "wrong_host", "without a token the Host header must name this host",
			"use localhost or 127.0.0.1, or set ROWHOOK_HTTP_TOKEN")
	}
	if need == public || !g.tokens {
		return nil
	}
	switch has := g.access(r); {
	case has >= need:
		return nil
	case has == read:
		return newProblem(http.StatusForbidden, "read_only", "this token allows reading only", "use the token in ROWHOOK_HTTP_TOKEN")
	}
	return newProblem(http.StatusUnauthorized, "unauthorized", "a valid token is required", "send the header Authorization: Bearer TOKEN").
		with("WWW-Authenticate", `Bearer realm="rowhook"`)
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
	return queue.Actor{Name: name, Client: hostname(r.RemoteAddr)}
}

// may reports whether a request has this access.
func (g *guard) may(r *http.Request, need access) bool { return g.check(r, need) == nil }

// hostname returns a Host header without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
