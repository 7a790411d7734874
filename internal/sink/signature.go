package sink

import (
	"net/http"

	"github.com/rowhook/rowhook/webhook"
)

// Signature is what a sink knows of the signature of a request.
type Signature string

// The verdicts.
const (
	Valid     Signature = "valid"
	Invalid   Signature = "invalid"
	None      Signature = "none"      // the request has no signature
	Unchecked Signature = "unchecked" // it has one, but the sink has no secret to check it with
)

// checkSignature sets the verdict of d. It returns an error if the request must be rejected.
func (s *Sink) checkSignature(d *Delivery) error {
	secret := s.Secret
	if secret == "" && s.SecretOf != nil {
		secret = s.SecretOf(d.Trigger)
	}
	d.Signature = presence(d.Header)
	if s.Secret == "" && (d.Signature == None || secret == "") {
		return nil
	}
	err := webhook.Verify(secret, d.Header, d.Body, d.ReceivedAt)
	switch {
	case err == nil:
		d.Signature = Valid
	case d.Signature != None:
		d.Signature, d.SignatureProblem = Invalid, err.Error()
	}
	if s.Secret == "" {
		return nil
	}
	return err
}

// presence returns the verdict without a secret.
func presence(header http.Header) Signature {
	if header.Get(webhook.HeaderSignature) == "" {
		return None
	}
	return Unchecked
}
