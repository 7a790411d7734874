package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"

	"github.com/rowhook/rowhook/internal/queue"
)

// access is what a request has to be allowed.
type access int

const (
	public access = iota // nothing: health, which tells no data
	read
	write
)

// guard decides who may do what.
type guard struct {
	tokens bool
	digest map[access]*[sha256.Size]byte // of the tokens there are
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

// check says why a request may not do what needs this access; nil: it may.
func (g *guard) check(r *http.Request, need access) *Problem {
	// Browsers say for whom they ask. None has a reason to come here on behalf of a page, whatever it was told about the address.
	if site := r.Header.Get("Sec-Fetch-Site"); r.Header.Get("Origin") != "" || site == "cross-site" || site == "same-site" {
		return newProblem(http.StatusForbidden, "cross_origin", "requests on behalf of web pages are refused", "ask from a program, or from a server of yours")
	}
	if !g.tokens && !isLoopback(hostname(r.Host)) {
		return newProblem(http.StatusForbidden, "wrong_host", "without a token only the names of this host are answered to",
			"ask for localhost or 127.0.0.1, or set ROWHOOK_HTTP_TOKEN")
	}
	if need == public || !g.tokens {
		return nil
	}
	switch has := g.access(r); {
	case has >= need:
		return nil
	case has == read:
		return newProblem(http.StatusForbidden, "read_only", "this token may only look", "use the one of ROWHOOK_HTTP_TOKEN")
	}
	return newProblem(http.StatusUnauthorized, "unauthorized", "a valid token is needed", "send the header Authorization: Bearer TOKEN").
		with("WWW-Authenticate", `Bearer realm="rowhook"`)
}

// access is what the request's token allows. Tokens are compared by their digests, in a time that does not depend on either.
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

// actor is who asks, for the audit.
func (g *guard) actor(r *http.Request) queue.Actor {
	name := "HTTP without a token"
	if g.access(r) >= write {
		name = "HTTP with ROWHOOK_HTTP_TOKEN"
	}
	return queue.Actor{Name: name, Client: hostname(r.RemoteAddr)}
}

// may reports that a request is allowed this access.
func (g *guard) may(r *http.Request, need access) bool { return g.check(r, need) == nil }

// hostname is a Host header without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
