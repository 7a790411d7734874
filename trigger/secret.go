package trigger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The first parts of the keys of Standard Webhooks. The key follows in base64.
const (
	SecretPrefix  = "whsec_" // a secret that sender and receiver share: HMAC-SHA256
	PrivatePrefix = "whsk_"  // the private key of Ed25519, which the sender alone has
	PublicPrefix  = "whpk_"  // its public key, with which receivers verify
)

// SecretFault returns what is wrong with the form of a signing secret, or "". Such a secret would
// sign with a key that no receiver has. secret is one secret, or several that are separated by
// spaces. It may still hold references. The text begins with a verb, so that the name of the key can
// precede it, and says what to do. It quotes nothing of the secret. A secret without [SecretPrefix]
// or [PrivatePrefix] is used as a key as it is.
func SecretFault(secret string) string {
	const quotes = "\"'`“”‘’„«»"
	for part := range strings.FieldsSeq(withoutPaths(secret)) {
		lower := strings.ToLower(part)
		switch {
		case strings.ContainsAny(part[:1], quotes) || strings.Trim(part, quotes) != part:
			return "stands in quotes, which would be part of the key: remove them"
		case strings.HasPrefix(lower, "v1,"), strings.HasPrefix(lower, "v1a,"):
			return "begins with " + lower[:strings.IndexByte(lower, ',')+1] + " like a signature: remove that; a secret is whsec_ and base64"
		case strings.HasPrefix(lower, PublicPrefix):
			return "begins with whpk_, which marks the public key of Ed25519, for the receiver: write the private key, which begins with whsk_"
		case bareReference.MatchString(part):
			return "is the name of a variable without braces: write ${NAME}"
		}
		for _, prefix := range []string{SecretPrefix, PrivatePrefix} {
			at := strings.Index(lower, prefix)
			switch word := strings.TrimSuffix(prefix, "_"); {
			case at > 0 && !strings.HasPrefix(part, SecretPrefix) && !strings.HasPrefix(part, PrivatePrefix):
				return "has " + prefix + " in the middle: a secret begins with it; separate several by spaces"
			case at == 0 && !strings.HasPrefix(part, prefix):
				return "begins with " + prefix + " in capital letters: write it in lower case"
			case at < 0 && strings.HasPrefix(lower, word):
				return "begins with " + word + " but not with " + prefix + ": copy the secret again"
			}
		}
	}
	return ""
}

var bareReference = regexp.MustCompile(`^\$\(?[A-Za-z_][A-Za-z0-9_]*\)?$`)

// withoutPaths shortens references to files, whose paths may have blanks and anything else in them.
func withoutPaths(secret string) string {
	if !strings.Contains(secret, "${"+FilePrefix) {
		return secret
	}
	var out strings.Builder
	err := eachReference(secret, func(text string) { out.WriteString(strings.ReplaceAll(text, "${", "$${")) }, func(name string) {
		if strings.HasPrefix(name, FilePrefix) {
			name = "FILE"
		}
		out.WriteString("${" + name + "}")
	})
	if err != nil {
		return secret
	}
	return out.String()
}

// DecodeKey decodes what stands behind the prefix of a key: base64 in the standard or the URL
// alphabet, with or without padding.
func DecodeKey(encoded string) ([]byte, error) {
	encoded = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
	return base64.RawStdEncoding.DecodeString(encoded)
}

// PrivateKey returns the Ed25519 key of what stands behind [PrivatePrefix]: the 32 bytes of the
// seed, or 64 bytes with the public key behind it. The error says what to do, and quotes nothing.
func PrivateKey(encoded string) (ed25519.PrivateKey, error) {
	key, err := DecodeKey(encoded)
	switch {
	case err != nil:
		return nil, errors.New("is not base64 behind whsk_: copy it again, or make one with echo whsk_$(openssl rand -base64 32)")
	case len(key) == ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(key), nil
	case len(key) != ed25519.PrivateKeySize:
		return nil, errors.New("is not a key of Ed25519 behind whsk_, which has 32 or 64 bytes: copy it again, or make one with echo whsk_$(openssl rand -base64 32)")
	}
	whole := ed25519.NewKeyFromSeed(key[:ed25519.SeedSize])
	if !bytes.Equal(whole, key) {
		return nil, errors.New("has 64 bytes behind whsk_ whose halves do not belong together: copy it again, or write the first 32 bytes alone")
	}
	return whole, nil
}

// A shorter key, in bytes, deserves a warning. A program makes the key behind whsec_, and Standard
// Webhooks ask for 24 bytes or more. A person chose a plain text.
const (
	leastKey   = 16
	leastPlain = 8
)

// IsShortKey reports whether a key is easy to guess. prefixed says that the key came in base64,
// behind [SecretPrefix]. The limits are 16 bytes for such a key and 8 for a plain text.
func IsShortKey(key []byte, prefixed bool) bool {
	if prefixed {
		return len(key) < leastKey
	}
	return len(key) < leastPlain
}

// hasNewSecrets reports whether a Webhook has a token, a private key, or a reference to a file.
func (w *Webhook) hasNewSecrets() bool {
	if !w.OAuth2.IsZero() || strings.Contains(w.Secret, PrivatePrefix) {
		return true
	}
	values := []string{w.URL, w.Secret, w.TLS.CAFile, w.TLS.CertFile, w.TLS.KeyFile}
	return slices.ContainsFunc(slices.AppendSeq(values, maps.Values(w.Headers)), func(value string) bool {
		return strings.Contains(value, "${"+FilePrefix)
	})
}
