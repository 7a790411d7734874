package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Token is a named token as its file keeps it: without the token itself.
type Token struct {
	Name string
	// Digest is the SHA-256 of the token. A slow hash, as for passwords, would gain nothing: nobody
	// can try 2^256 tokens. It would cost each request some 100 ms.
	Digest [sha256.Size]byte
	Scopes Scopes    // with those that they include
	Made   time.Time // in UTC
	Until  time.Time // when it ends, in UTC; zero: never
}

// Prefix is what every token begins with, so that people and scanners for secrets recognise it.
const Prefix = "rwh_"

// secretBytes is the length of a token's random part.
const secretBytes = 32

// New makes a token. secret is what its bearer sends, and is not kept.
func New(name string, scopes Scopes, until time.Time) (t Token, secret string) {
	random := make([]byte, secretBytes)
	_, _ = rand.Read(random) // it never fails
	secret = Prefix + base64.RawURLEncoding.EncodeToString(random)
	return Token{Name: name, Digest: Digest(secret), Scopes: scopes.With(), Made: time.Now().UTC().Truncate(time.Second), Until: until.UTC()}, secret
}

// Digest returns what a file keeps of a token.
func Digest(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// Ended reports whether the token is valid no longer.
func (t *Token) Ended(now time.Time) bool { return !t.Until.IsZero() && !now.Before(t.Until) }

var nameSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}$`)

// CheckName returns an error for what can't be the name of a token.
func CheckName(name string) error {
	if !nameSyntax.MatchString(name) {
		return fmt.Errorf("%q can't be the name of a token: write up to 63 letters, digits and . _ @ + -, such as ops or ann@example.com, and begin with a letter or digit", name)
	}
	return nil
}

// never stands in a line for a token that does not end.
const never = "never"

// line returns the line of the token in its file.
func (t *Token) line() string {
	until := never
	if !t.Until.IsZero() {
		until = t.Until.Format(time.RFC3339)
	}
	return fmt.Sprintf("%s %s until=%s made=%s sha256=%s", t.Name, t.Scopes, until, t.Made.Format(time.RFC3339), hex.EncodeToString(t.Digest[:]))
}

// parseLine reads the line of a token.
func parseLine(text string) (t Token, err error) {
	fields := strings.Fields(text)
	if len(fields) != 5 {
		return t, fmt.Errorf("it has %d words, and a token has 5: NAME SCOPES until=TIME made=TIME sha256=DIGEST", len(fields))
	}
	t.Name = fields[0]
	if err := CheckName(t.Name); err != nil {
		return t, err
	}
	if t.Scopes, err = ParseScopes(fields[1]); err != nil {
		return t, err
	}
	for i, to := range map[int]*time.Time{2: &t.Until, 3: &t.Made} {
		key := map[int]string{2: "until=", 3: "made="}[i]
		value, ok := strings.CutPrefix(fields[i], key)
		if ok && i == 2 && value == never {
			continue
		}
		if *to, err = time.Parse(time.RFC3339, value); !ok || err != nil {
			return t, fmt.Errorf("%q should be %s and a time, such as %s2027-01-31T23:59:59Z", fields[i], key, key)
		}
	}
	digest, ok := strings.CutPrefix(fields[4], "sha256=")
	raw, err := hex.DecodeString(digest)
	if !ok || err != nil || len(raw) != len(t.Digest) {
		return t, errors.New("its last word should be sha256= and 64 hexadecimal digits")
	}
	copy(t.Digest[:], raw)
	return t, nil
}
