package session

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rowhook/rowhook/internal/secret"
)

// secretFile matches the parameters of a connection string that name a file with a secret.
var secretFile = regexp.MustCompile(`(?:^|[?&\s])(?:passfile|sslkey|servicefile)\s*=\s*'?([^&\s']+)`)

// Secrets returns what must not be given away of these connection strings: their passwords, and the
// files that passwords and keys come from.
func Secrets(texts ...string) (own secret.Own) {
	for _, variable := range []string{"PGPASSFILE", "PGSSLKEY", "PGSERVICEFILE"} {
		own.Files = append(own.Files, os.Getenv(variable))
	}
	if home, err := os.UserHomeDir(); err == nil {
		own.Files = append(own.Files, filepath.Join(home, ".pgpass"), filepath.Join(home, ".pg_service.conf"))
	}
	for _, text := range texts {
		connection, path, _ := load(text) // if it can't be read, there is nothing to give away
		own.Files = append(own.Files, path)
		for _, m := range secretFile.FindAllStringSubmatch(connection, -1) {
			own.Files = append(own.Files, m[1])
			if plain, err := url.PathUnescape(m[1]); err == nil {
				own.Files = append(own.Files, plain)
			}
		}
		config, err := Parse(text)
		// A password that is also a name, as for trying out, is part of too much.
		if err != nil || strings.EqualFold(config.Password, config.User) || strings.EqualFold(config.Password, config.Database) {
			continue
		}
		own.Values = append(own.Values, config.Password, url.QueryEscape(config.Password), url.PathEscape(config.Password))
	}
	return own
}
