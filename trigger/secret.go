package trigger

import (
	"regexp"
	"strings"
)

// SecretPrefix is the first part of a signing secret of Standard Webhooks. The key follows in
// base64.
const SecretPrefix = "whsec_"

// SecretFault returns what is wrong with the form of a signing secret, or "". Such a secret would
// sign with a key that no receiver has. secret is one secret, or several that are separated by
// spaces. It may still hold ${NAME} references. The text begins with a verb, so that the name of
// the key can precede it, and says what to do. It quotes nothing of the secret. A secret without
// [SecretPrefix] is used as a key as it is.
func SecretFault(secret string) string {
	const quotes = "\"'`“”‘’„«»"
	for part := range strings.FieldsSeq(secret) {
		lower := strings.ToLower(part)
		at := strings.Index(lower, SecretPrefix)
		switch {
		case strings.ContainsAny(part[:1], quotes) || strings.Trim(part, quotes) != part:
			return "stands in quotes, which would be part of the key: remove them"
		case strings.HasPrefix(lower, "v1,"), strings.HasPrefix(lower, "v1a,"):
			return "begins with " + lower[:strings.IndexByte(lower, ',')+1] + " like a signature: remove that; a secret is whsec_ and base64"
		case strings.HasPrefix(lower, "whsk_"), strings.HasPrefix(lower, "whpk_"):
			return "begins with " + lower[:5] + ", which marks an Ed25519 key: Rowhook can't sign with one; use a secret that begins with whsec_"
		case at > 0:
			return "has whsec_ in the middle: a secret begins with it; separate several by spaces"
		case at == 0 && !strings.HasPrefix(part, SecretPrefix):
			return "begins with whsec_ in capital letters: write it in lower case"
		case at < 0 && strings.HasPrefix(lower, "whsec"):
			return "begins with whsec but not with whsec_: copy the secret again"
		case bareReference.MatchString(part):
			return "is the name of a variable without braces: write ${NAME}"
		}
	}
	return ""
}

var bareReference = regexp.MustCompile(`^\$\(?[A-Za-z_][A-Za-z0-9_]*\)?$`)

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
