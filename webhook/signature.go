package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"slices"
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
	// HeaderSignature holds a signature of id.timestamp.body for each secret, separated by spaces:
	// v1,<base64 of HMAC-SHA256> for a shared secret, v1a,<base64 of Ed25519> for a private key.
	HeaderSignature = "Webhook-Signature"
)

// SignatureTolerance is the largest difference between now and a timestamp that Verify accepts. The
// reference implementations of Standard Webhooks use the same.
const SignatureTolerance = 5 * time.Minute

// mostSignatures is how many signatures of a request Verify tries.
const mostSignatures = 32

const secretPrefix = trigger.SecretPrefix

// ErrSignature is wrapped by the errors of Verify about the request. Its errors about the secret do
// not wrap it.
var ErrSignature = errors.New("signature does not verify")

// Sign returns the value of the header webhook-signature for a request with this id, time and body.
// A secret is whsec_ followed by base64 in the standard or the URL alphabet, or whsk_ followed by the
// base64 of a private key of Ed25519. Any other text is the key of an HMAC itself. secret may hold
// several that are separated by spaces, for rotation: then there is one signature for each. A
// malformed or empty secret is an error.
func Sign(secret, id string, at time.Time, body []byte) (string, error) {
	s, err := newSigner(secret)
	if err != nil {
		return "", err
	}
	return string(s.appendSignatures(nil, id, strconv.FormatInt(at.Unix(), 10), body)), nil
}

// Verify checks a signed request as its receiver should. The timestamp must be within
// SignatureTolerance of now, and at least one signature must be made with one of the secrets in
// secret. Instead of a private key, secret may have its public key: whpk_ and base64. body holds the
// bytes of the request as they arrived, decompressed if they were compressed.
func Verify(secret string, header http.Header, body []byte, now time.Time) error {
	s, err := newVerifier(secret)
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
	if len(given) > mostSignatures {
		return fmt.Errorf("%w: webhook-signature has %d signatures, more than %d", ErrSignature, len(given), mostSignatures)
	}
	message := signedContent(nil, id, stamp, body)
	for i := range s.keys {
		if s.keys[i].verifies(given, message) {
			return nil
		}
	}
	return fmt.Errorf("%w: the body, the id, the timestamp or the secret is not what was signed", ErrSignature)
}

// PublicKeys returns the public keys of the private keys in a secret, each as whpk_ and base64. A
// receiver verifies with them.
func PublicKeys(secret string) ([]string, error) {
	s, err := newSigner(secret)
	if err != nil {
		return nil, err
	}
	return s.publicKeys(), nil
}

// signer signs with each of its keys.
type signer struct {
	keys  []signingKey
	short bool // a key is easy to guess
}

// signingKey is one key of a signer: that of an HMAC, or that of Ed25519.
type signingKey struct {
	// pool has keyed hashes. Keying a hash costs two blocks of SHA-256 and seven allocations.
	pool    *sync.Pool
	private ed25519.PrivateKey
	public  ed25519.PublicKey // without private in a verifier
}

func newSigner(secret string) (*signer, error) {
	if fault := trigger.SecretFault(secret); fault != "" {
		return nil, errors.New("secret " + fault)
	}
	return parseKeys(secret)
}

// newVerifier accepts public keys, too.
func newVerifier(secret string) (*signer, error) {
	for part := range strings.FieldsSeq(secret) {
		if fault := trigger.SecretFault(part); fault != "" && !strings.HasPrefix(part, trigger.PublicPrefix) {
			return nil, errors.New("secret " + fault)
		}
	}
	return parseKeys(secret)
}

func parseKeys(secret string) (*signer, error) {
	s := &signer{}
	for part := range strings.FieldsSeq(secret) {
		key, err := parseKey(part)
		if err != nil {
			return nil, fmt.Errorf("secret %w", err)
		}
		if key.public != nil {
			s.keys = append(s.keys, key)
			continue
		}
		mac := []byte(part)
		encoded, prefixed := strings.CutPrefix(part, secretPrefix)
		if prefixed {
			if mac, err = trigger.DecodeKey(encoded); err != nil || len(mac) == 0 {
				return nil, errors.New("secret begins with whsec_, but the rest is not base64: copy it again, or make one with echo whsec_$(openssl rand -base64 32)")
			}
		}
		s.short = s.short || trigger.IsShortKey(mac, prefixed)
		key.pool = &sync.Pool{New: func() any { return hmac.New(sha256.New, mac) }}
		s.keys = append(s.keys, key)
	}
	if len(s.keys) == 0 {
		return nil, errors.New("secret is empty: set it, or remove the key secret")
	}
	return s, nil
}

// parseKey reads a key of Ed25519. Of any other key it returns the zero value.
func parseKey(part string) (signingKey, error) {
	if encoded, ok := strings.CutPrefix(part, trigger.PrivatePrefix); ok {
		private, err := trigger.PrivateKey(encoded)
		if err != nil {
			return signingKey{}, err
		}
		return signingKey{private: private, public: private.Public().(ed25519.PublicKey)}, nil
	}
	if encoded, ok := strings.CutPrefix(part, trigger.PublicPrefix); ok {
		public, err := trigger.DecodeKey(encoded)
		if err != nil || len(public) != ed25519.PublicKeySize {
			return signingKey{}, errors.New("is not a public key of Ed25519 behind whpk_, which has 32 bytes in base64: copy it again")
		}
		return signingKey{public: public}, nil
	}
	return signingKey{}, nil
}

// publicKeys returns those of the private keys, as whpk_ and base64.
func (s *signer) publicKeys() (keys []string) {
	for i := range s.keys {
		if s.keys[i].private != nil {
			keys = append(keys, trigger.PublicPrefix+base64.StdEncoding.EncodeToString(s.keys[i].public))
		}
	}
	return keys
}

// verifies reports whether one of the signatures, such as v1,<base64>, is that of message by the key.
func (k *signingKey) verifies(given []string, message []byte) bool {
	if k.public == nil {
		want := k.appendMAC(nil, message, nil)
		return slices.ContainsFunc(given, func(got string) bool { return hmac.Equal([]byte(got), want) })
	}
	return slices.ContainsFunc(given, func(got string) bool {
		encoded, ok := strings.CutPrefix(got, "v1a,")
		if !ok {
			return false
		}
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		return err == nil && ed25519.Verify(k.public, message, decoded)
	})
}

// appendMAC appends the signature of a message by an HMAC, which is given in two parts.
func (k *signingKey) appendMAC(dst, head, body []byte) []byte {
	mac := k.pool.Get().(hash.Hash)
	mac.Reset()
	mac.Write(head)
	mac.Write(body)
	var sum [sha256.Size]byte
	dst = append(dst, "v1,"...)
	dst = base64.StdEncoding.AppendEncode(dst, mac.Sum(sum[:0]))
	k.pool.Put(mac)
	return dst
}

// signedContent appends what is signed to dst.
func signedContent(dst []byte, id, stamp string, body []byte) []byte {
	dst = append(dst, id...)
	dst = append(dst, '.')
	dst = append(dst, stamp...)
	dst = append(dst, '.')
	return append(dst, body...)
}

func (s *signer) appendSignatures(dst []byte, id, stamp string, body []byte) []byte {
	var space [96]byte
	head := signedContent(space[:0], id, stamp, nil)
	var whole []byte // Ed25519 wants the message in one piece
	for i := range s.keys {
		if i > 0 {
			dst = append(dst, ' ')
		}
		k := &s.keys[i]
		if k.private == nil {
			dst = k.appendMAC(dst, head, body)
			continue
		}
		if whole == nil {
			whole = append(append(make([]byte, 0, len(head)+len(body)), head...), body...)
		}
		dst = append(dst, "v1a,"...)
		dst = base64.StdEncoding.AppendEncode(dst, ed25519.Sign(k.private, whole))
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
