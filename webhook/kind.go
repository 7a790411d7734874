package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode"
)

// Kind says why an attempt got no status, or why a 2xx status did not deliver an event of a batch.
// rowhook.invocation_log stores it in the column error_kind.
type Kind string

// The kinds. KindResponse means that a response arrived, with any status.
const (
	KindResponse    Kind = ""
	KindRefused     Kind = "refused"     // nothing listens there
	KindDNS         Kind = "dns"         // the host's name could not be resolved
	KindTLS         Kind = "tls"         // certificate, protocol or handshake of TLS
	KindTimeout     Kind = "timeout"     // the attempt's time ran out, at whatever step
	KindReset       Kind = "reset"       // reset or closed before there was a status
	KindUnreachable Kind = "unreachable" // no route to the host
	KindBadURL      Kind = "bad_url"     // can't be called as configured: see Endpoint.Problem
	KindTooLarge    Kind = "too_large"   // the response's headers or the request body
	KindDenied      Kind = "denied"      // the guard forbids the address
	KindBadPayload  Kind = "bad_payload" // the payload can't be read, or is not UTF-8
	KindToken       Kind = "token"       // no OAuth token: its endpoint fails, or refuses
	// KindUnauthorized means that servers of NATS do not accept the login, or do not let it publish.
	KindUnauthorized Kind = "unauthorized"
	KindRejected     Kind = "rejected"   // a 2xx response to a batch lists the event as failed
	KindBadAnswer    Kind = "bad_answer" // a 2xx response to a batch can't be understood
	KindCanceled     Kind = "canceled"   // Rowhook stopped before the response arrived
	KindOther        Kind = "other"      // anything else, such as a response that is not HTTP
)

// Kinds returns the kinds with which Send can fail, as text. KindBadPayload is not among them: it
// is the dispatcher's.
func Kinds() []string {
	var out []string
	for _, k := range []Kind{
		KindRefused, KindDNS, KindTLS, KindTimeout, KindReset, KindUnreachable, KindBadURL, KindTooLarge, KindDenied, KindToken, KindUnauthorized, KindRejected, KindBadAnswer,
		KindCanceled, KindOther,
	} {
		out = append(out, string(k))
	}
	return out
}

// Classify returns the kind of an error from a round trip or from reading a response. It depends on
// nothing but err. nil is KindResponse.
func Classify(err error) Kind {
	var (
		denied *DeniedError
		dns    *net.DNSError
		timed  net.Error
	)
	switch {
	case err == nil:
		return KindResponse
	case errors.As(err, &denied):
		return KindDenied
	case errors.Is(err, context.Canceled):
		return KindCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return KindTimeout
	case errors.As(err, &dns):
		return KindDNS
	case errors.Is(err, syscall.ECONNREFUSED):
		return KindRefused
	case isAny(err, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
		syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.EPERM):
		return KindUnreachable
	case isAny(err, brokenConnection...):
		return KindReset
	case errors.As(err, &timed) && timed.Timeout():
		return KindTimeout
	case IsTLS(err):
		return KindTLS
	}
	return classifyText(err.Error())
}

// brokenConnection is what reading and writing a connection return that the other side has closed.
var brokenConnection = []error{syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed}

// classifyText classifies failures for which net/http exports no type.
func classifyText(text string) Kind {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("response headers exceeded", "response header list larger"):
		return KindTooLarge
	case has("HTTP response to HTTPS client", "tls: ", "x509: "):
		return KindTLS
	case has("server closed idle connection", "stream error:", "sent GOAWAY", "client connection lost",
		"client connection force closed", "transport closed before response", "readLoopPeekFailLocked"):
		return KindReset
	}
	return KindOther
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// IsTLS reports whether a connection failed because of TLS: certificate, protocol or handshake.
func IsTLS(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		invalid      x509.CertificateInvalidError
		roots        x509.SystemRootsError
		record       tls.RecordHeaderError
		alert        tls.AlertError
	)
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname) ||
		errors.As(err, &invalid) || errors.As(err, &roots) || errors.As(err, &record) || errors.As(err, &alert)
}

// describe says in one line what went wrong with a call to host. It cuts the prefixes of Go's
// errors.
func describe(err error, kind Kind, host string) string {
	var (
		op      *net.OpError
		dns     *net.DNSError
		denied  *DeniedError
		address = host
	)
	if errors.As(err, &op) && op.Op == "proxyconnect" {
		return "through the proxy: " + describe(op.Err, kind, "the proxy")
	}
	if op != nil && op.Addr != nil {
		address = op.Addr.String()
	}
	switch kind {
	case KindRefused:
		return "connection refused by " + address
	case KindDNS:
		errors.As(err, &dns)
		if dns.IsNotFound {
			return "no such host: " + dns.Name
		}
		return "could not look up host " + dns.Name + ": " + oneLine(dns.Err)
	case KindTLS:
		return describeTLS(err, host)
	case KindReset:
		if isAny(err, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE) {
			return "connection reset by " + address
		}
		return "connection closed by " + address + " before the response was complete"
	case KindUnreachable:
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return "no local port or address left to connect to " + address
		}
		return "no route to " + address
	case KindTooLarge:
		return "the response's headers are over the limit of 64 KiB"
	case KindDenied:
		errors.As(err, &denied)
		return denied.Error()
	case KindCanceled:
		return "canceled: Rowhook is stopping"
	case KindTimeout:
		return "timed out talking to " + address
	}
	return withoutPrefix(oneLine(err.Error()))
}

func describeTLS(err error, host string) string {
	var (
		authority x509.UnknownAuthorityError
		record    tls.RecordHeaderError
		op        *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		return "certificate signed by unknown authority"
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return host + " does not speak TLS: is its URL http, not https?"
	case errors.As(err, &op) && op.Op == "remote error":
		return "TLS handshake rejected by " + host + ": " + withoutPrefix(oneLine(op.Err.Error()))
	}
	text := oneLine(err.Error())
	for _, layer := range []string{"x509: ", "tls: "} {
		if i := strings.LastIndex(text, layer); i >= 0 {
			text = text[i+len(layer):]
			break
		}
	}
	return text
}

// withoutPrefix removes the package names with which Go's errors begin.
func withoutPrefix(text string) string {
	for {
		cut := text
		for _, p := range []string{"net/http: ", "http: ", "http2: ", "tls: ", "HTTP/1.x transport connection broken: "} {
			cut = strings.TrimPrefix(cut, p)
		}
		if cut == text {
			return text
		}
		text = cut
	}
}

// oneLine makes text fit into one line of a log or a column: no control characters, and at most
// some 300 bytes.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
