package webapi

import (
	"net"
	"net/http"
	"strings"
)

// FromPage returns a problem for requests of web pages. Browsers mark them by headers. No page has a
// reason to send requests to a program on this machine, even if DNS rebinding gave it the address.
func FromPage(r *http.Request) *Problem {
	site := r.Header.Get("Sec-Fetch-Site")
	if r.Header.Get("Origin") == "" && site != "cross-site" && site != "same-site" {
		return nil
	}
	return NewProblem(http.StatusForbidden, "cross_origin", "requests of web pages are rejected", "send the request from a program or from your server")
}

// IsLoopback reports whether host is a loopback address or localhost, which only local programs can
// reach.
func IsLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Hostname returns a Host header without its port.
func Hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
