package clone

import (
	"errors"
	"net/url"
	"strings"
)

// WithDatabase returns a connection string with another database's name. It may be a URL, or
// keywords and values, or empty where the PG* variables say the rest.
func WithDatabase(connString, name string) (string, error) {
	if !strings.Contains(connString, "://") {
		// Of a keyword that is there twice, the last one counts.
		return strings.TrimSpace(connString + " dbname='" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(name) + "'"), nil
	}
	u, err := url.Parse(connString)
	if err != nil {
		// The error of url.Parse repeats the string, which may hold a password.
		return "", errors.New("the URL of the server can't be read: escape special characters in it, such as % by %25")
	}
	query := u.Query()
	if query.Has("dbname") {
		query.Del("dbname")
		u.RawQuery = query.Encode()
	}
	u.Path, u.RawPath = "/"+name, ""
	return u.String(), nil
}
