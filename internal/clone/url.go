package clone

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
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

// passwordKeyword is a password between keywords and values, with the blanks in front of it.
var passwordKeyword = regexp.MustCompile(`(^|\s+)(?:ssl)?password\s*=\s*(?:'(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)?`)

// WithoutPassword returns a connection string without the passwords in it, to be shown. One that
// can't be read is not shown at all.
func WithoutPassword(connString string) string {
	if !strings.Contains(connString, "://") {
		return strings.TrimSpace(passwordKeyword.ReplaceAllString(connString, ""))
	}
	u, err := url.Parse(connString)
	if err != nil {
		return ""
	}
	if _, has := u.User.Password(); has {
		u.User = url.User(u.User.Username())
	}
	// It is not decoded, since a plus is no blank here.
	u.RawQuery = strings.Join(slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(parameter string) bool {
		name, _, _ := strings.Cut(parameter, "=")
		plain, err := url.PathUnescape(name)
		return err != nil || plain == "password" || plain == "sslpassword"
	}), "&")
	return u.String()
}
