package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// The headers of a signed request, as defined by [Standard Webhooks].
//
// [Standard Webhooks]: https://www.standardwebhooks.com
const (
	HeaderID        = "Webhook-Id"        // the id of the event, or that of BatchID
	HeaderTimestamp = "Webhook-Timestamp" // when the attempt was sent, in Unix seconds
	// HeaderSignature holds v1,<base64 of HMAC-SHA256(secret, id.timestamp.body)> for each secret,
	// separated by spaces.
	HeaderSignature = "Webhook-Signature"
)

// SignatureTolerance is the largest difference between now and a timestamp that Verify accepts. The
// reference implementations of Standard Webhooks use the same.
const SignatureTolerance = 5 * time.Minute

const secretPrefix = trigger.SecretPrefix

// ErrSignature is wrapped by the errors of Verify about the request. Its errors about the secret do
// not wrap it.
var ErrSignature = errors.New("signature does not verify")

// Sign returns the value of the header webhook-signature for a request with this id, time and body.
// A secret is whsec_ followed by base64 in the standard or the URL alphabet. Any other text is the
// key itself. secret may hold several that are separated by spaces, for rotation: then there is one
// signature for each. A malformed or empty secret is an error.
func Sign(secret, id string, at time.Time, body []byte) (string, error) {
	s, err := newSigner(secret)
	if err != nil {
		return "", err
	}
	return string(s.appendSignatures(nil, id, strconv.FormatInt(at.Unix(), 10), body)), nil
}

// Verify checks a signed request as its receiver should. The timestamp must be within
// SignatureTolerance of now, and at least one signature must be made with one of the secrets in
// secret. body holds the bytes of the request as they arrived, decompressed if they were compressed.
func Verify(secret string, header http.Header, body []byte, now time.Time) error {
	s, err := newSigner(secret)
	if err != nil {
		return err
	}
	id, stamp := header.Get(HeaderID), header.Get(HeaderTimestamp)
	if id == "" || stamp == "" || header.Get(HeaderSignature) == "" {
		return fmt.Errorf("%w: webhook-id, webhook-timestamp or webhook-signature is missing", ErrSignature)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: webhook-timestamp is not a number of seconds", ErrSignature)
	}
	if off := now.Sub(time.Unix(seconds, 0)).Abs(); off > SignatureTolerance {
		return fmt.Errorf("%w: webhook-timestamp is %s off, more than %s", ErrSignature, off.Round(time.Second), SignatureTolerance)
	}
	given := strings.Fields(header.Get(HeaderSignature))
	for _, want := range strings.Fields(string(s.appendSignatures(nil, id, stamp, body))) {
		for _, got := range given {
			if hmac.Equal([]byte(got), []byte(want)) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: the body, the id, the timestamp or the secret is not what was signed", ErrSignature)
}

// signer holds a pool of keyed hashes for each secret. Keying a hash costs two blocks of SHA-256
// and seven allocations.
type signer struct {
	pools []*sync.Pool
	short bool // a key is easy to guess
}

func newSigner(secret string) (*signer, error) {
	s := &signer{}
	if fault := trigger.SecretFault(secret); fault != "" {
		return nil, errors.New("secret " + fault)
	}
	for _, part := range strings.Fields(secret) {
		key := []byte(part)
		if encoded, ok := strings.CutPrefix(part, secretPrefix); ok {
			var err error
			key, err = decodeKey(encoded)
			if err != nil || len(key) == 0 {
				return nil, errors.New("secret begins with whsec_, but the rest is not base64: copy it again, or make one with echo whsec_$(openssl rand -base64 32)")
			}
		}
		s.short = s.short || trigger.IsShortKey(key, strings.HasPrefix(part, secretPrefix))
		s.pools = append(s.pools, &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }})
	}
	if len(s.pools) == 0 {
		return nil, errors.New("secret is empty: set it, or remove the key secret")
	}
	return s, nil
}

func decodeKey(encoded string) ([]byte, error) {
	encoded = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
	return base64.RawStdEncoding.DecodeString(encoded)
}

func (s *signer) appendSignatures(dst []byte, id, stamp string, body []byte) []byte {
	var head [96]byte
	signed := append(head[:0], id...)
	signed = append(signed, '.')
	signed = append(signed, stamp...)
	signed = append(signed, '.')
	for i, pool := range s.pools {
		mac := pool.Get().(hash.Hash)
		mac.Reset()
		mac.Write(signed)
		mac.Write(body)
		var sum [sha256.Size]byte
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = append(dst, "v1,"...)
		dst = base64.StdEncoding.AppendEncode(dst, mac.Sum(sum[:0]))
		pool.Put(mac)
	}
	return dst
}

// signedHeader returns a copy of base with the three signature headers of an attempt.
func (s *signer) signedHeader(base http.Header, id string, at time.Time, body []byte) http.Header {
	values := &[3]string{id, strconv.FormatInt(at.Unix(), 10)}
	var sig [128]byte
	values[2] = string(s.appendSignatures(sig[:0], values[0], values[1], body))
	h := make(http.Header, len(base)+3)
	for name, v := range base {
		h[name] = v
	}
	h[HeaderID], h[HeaderTimestamp], h[HeaderSignature] = values[0:1:1], values[1:2:2], values[2:3:3]
	return h
}
