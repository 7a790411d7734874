package localpg

import (
	"crypto/hmac"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// verifier returns what PostgreSQL stores of a password for SCRAM-SHA-256 (RFC 5802), with a single
// iteration. Iterations protect passwords that can be guessed, and ours are random.
func verifier(password string) string {
	salt := make([]byte, 16)
	cryptorand.Read(salt) // it never returns an error
	salted := mac([]byte(password), string(salt)+"\x00\x00\x00\x01")
	stored := sha256.Sum256(mac(salted, "Client Key"))
	code := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$1:%s$%s:%s", code(salt), code(stored[:]), code(mac(salted, "Server Key")))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = strings.NewReader(text).WriteTo(h) // a hash never fails
	return h.Sum(nil)
}
