package trigger

import (
	"regexp"
	"strings"
)

// SecretPrefix begins a signing secret of Standard Webhooks; its key follows in base64.
const SecretPrefix = "whsec_"

// SecretFault says what is wrong with the form of a signing secret, such that it would sign with a key that no receiver has; "": nothing is.
// It begins with a verb and quotes nothing of the secret. A plain text is a key as it is.
func SecretFault(secret string) string {
	const quotes = "\"'`“”‘’„«»"
	for part := range strings.FieldsSeq(secret) {
		lower := strings.ToLower(part)
		at := strings.Index(lower, SecretPrefix)
		switch {
		case strings.ContainsAny(part[:1], quotes) || strings.Trim(part, quotes) != part:
			return "stands in quotes, which would be part of the key: leave them away"
		case strings.HasPrefix(lower, "v1,"), strings.HasPrefix(lower, "v1a,"):
			return "begins with " + lower[:strings.IndexByte(lower, ',')+1] + " as a signature does: leave that away, a secret is whsec_ and base64"
		case strings.HasPrefix(lower, "whsk_"), strings.HasPrefix(lower, "whpk_"):
			return "begins with " + lower[:5] + " and so is an Ed25519 key, which Rowhook does not sign with: use one that begins with whsec_"
		case at > 0:
			return "holds whsec_ in its middle: a secret begins with it, and several are separated by spaces"
		case at == 0 && !strings.HasPrefix(part, SecretPrefix):
			return "begins with whsec_ in capital letters: write it small"
		case at < 0 && strings.HasPrefix(lower, "whsec"):
			return "begins with whsec, but not with whsec_: copy it again"
		case bareReference.MatchString(part):
			return "is the name of a variable without braces: write ${NAME}"
		}
	}
	return ""
}

var bareReference = regexp.MustCompile(`^\$\(?[A-Za-z_][A-Za-z0-9_]*\)?$`)

// Keys shorter than these, in bytes, are worth a warning: that of whsec_ is made by a program, as Standard Webhooks want it with 24 and more, and
// a plain text was chosen by someone.
const (
	leastKey   = 16
	leastPlain = 8
)

// IsShortKey reports that a key is easily guessed. prefixed says that it came in base64, behind whsec_.
func IsShortKey(key []byte, prefixed bool) bool {
	if prefixed {
		return len(key) < leastKey
	}
	return len(key) < leastPlain
}
