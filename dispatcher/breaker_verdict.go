package dispatcher

import "github.com/rowhook/rowhook/webhook"

// verdict is what an attempt says about the health of a trigger's endpoint, or of its host.
type verdict int8

const (
	noVerdict verdict = iota
	healthy
	ill
)

// judge returns what an attempt says. What keeps a connection from being made is the host's: it
// concerns every trigger that goes there. An answer, no answer in time and a connection that breaks
// are the trigger's alone, since a hundred triggers may share a gateway. ownTLS says that the
// endpoint has certificates of its own, so that a failed handshake may be its own fault.
//
// A 4xx says nothing about the trigger's health, unless it is 429 or asks for a pause. What Rowhook
// itself refuses to send says nothing at all.
func judge(r *webhook.Result, ownTLS bool) (trigger, host verdict) {
	switch r.Kind {
	case webhook.KindCanceled, webhook.KindBadURL, webhook.KindDenied, webhook.KindBadPayload:
		return noVerdict, noVerdict
	case webhook.KindTooLarge:
		if r.Connected { // the headers of a response
			return noVerdict, healthy
		}
		return noVerdict, noVerdict
	case webhook.KindResponse:
		switch {
		case r.Delivered():
			return healthy, healthy
		case r.Status == 429 || r.Status >= 500 || r.HasRetryAfter:
			return ill, healthy
		}
		return noVerdict, healthy
	case webhook.KindBadAnswer:
		return ill, healthy
	case webhook.KindRejected:
		return healthy, healthy
	case webhook.KindToken, webhook.KindUnauthorized: // other triggers of the host need no token, or have another login
		return ill, noVerdict
	case webhook.KindRefused, webhook.KindDNS, webhook.KindTLS, webhook.KindTimeout, webhook.KindReset, webhook.KindUnreachable, webhook.KindOther:
	}
	switch {
	case r.Connected:
		return ill, healthy
	case r.Kind == webhook.KindTLS && ownTLS:
		return ill, healthy
	}
	return noVerdict, ill
}
