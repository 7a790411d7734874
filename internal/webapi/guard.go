package webapi

import (
	"net"
	"net/http"
	"strings"
)

// FromOtherPage returns a problem for requests of web pages, except for those of a page that this
// server has sent itself. Browsers say by Sec-Fetch-Site whether a page is of the same origin, and
// where they don't, as over plain HTTP to other hosts, the Origin has to be this host. Unlike
// net/http it also rejects those that only read: a page of another origin has no business here.
// DNS rebinding makes a page of another host one of the same origin, so without tokens the Host has
// to be checked, too.
func FromOtherPage(r *http.Request) *Problem {
	probe := &http.Request{Method: http.MethodPost, Header: r.Header, Host: r.Host, URL: r.URL} // methods that only read pass otherwise
	if http.NewCrossOriginProtection().Check(probe) == nil {
		return nil
	}
	return NewProblem(http.StatusForbidden, "cross_origin", "requests of other web pages are rejected",
		"open the page that this server has, or send the request from a program or from your server")
}

// FromPage returns a problem for requests of web pages. Browsers mark them by headers. No page has a
// reason to send requests to a receiver for tests on this machine, even if DNS rebinding gave it the
// address.
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
