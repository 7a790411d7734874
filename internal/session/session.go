// Package session makes every connection of Rowhook to Postgres. It reads connection strings and
// opens connections. It sets what each session needs, whatever the role, the database and the
// environment say.
package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Parse reads a connection string: a URL, or keywords and values. If it is empty, the PG* variables
// say where to connect. Errors never repeat the string, which may hold a password.
func Parse(text string) (*pgx.ConnConfig, error) {
	text, err := clean(text)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, withoutString(err)
	}
	if err := understand(config); err != nil {
		return nil, err
	}
	settle(config)
	return config, nil
}

// ParsePool is Parse for a pool. Its connections are opened as by Connect.
func ParsePool(text string) (*pgxpool.Config, error) {
	text, err := clean(text)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, withoutString(err)
	}
	if err := understand(config.ConnConfig); err != nil {
		return nil, err
	}
	settle(config.ConnConfig)
	config.BeforeConnect, config.AfterConnect = refresh, Own
	return config, nil
}

// Connect opens a connection with a configuration from Parse.
func Connect(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	config = config.Copy()
	if err := refresh(ctx, config); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := Own(ctx, conn); err != nil {
		_ = conn.Close(ctx) // the first error is what matters
		return nil, err
	}
	return conn, nil
}

// Open calls Parse and Connect.
func Open(ctx context.Context, text string) (*pgx.Conn, error) {
	config, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read the connection string: %w", err)
	}
	return Connect(ctx, config)
}

// settle sets what is the same for every session.
func settle(config *pgx.ConnConfig) {
	// Sessions use UTF-8. A role, a database or the environment may have set another encoding.
	// There, one text that could not be converted failed every claim, and names that are not ASCII
	// were garbled.
	config.RuntimeParams["client_encoding"] = "UTF8"
}

// refresh reads again what may have been rotated since the string was parsed: the passfile, the
// service file and certificates. If a file can't be read now, because it is being written, its old
// content stays.
func refresh(_ context.Context, config *pgx.ConnConfig) error {
	fresh, err := Parse(config.ConnString())
	if err != nil {
		return nil //nolint:nilerr // if the password is out of date, the server says so
	}
	if fresh.Password == "" {
		fresh.Password = config.Password
	}
	config.Host, config.Port, config.User, config.Password = fresh.Host, fresh.Port, fresh.User, fresh.Password
	config.TLSConfig, config.Fallbacks, config.LookupFunc = fresh.TLSConfig, fresh.Fallbacks, fresh.LookupFunc
	return nil
}

// withoutString returns an error of pgx without the connection string in it. pgx hides the password
// in the string, but it can't find the password in a malformed one.
func withoutString(err error) error {
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+len("`: "):]
	}
	if _, path, ok := strings.Cut(text, "failed to read service file: "); ok {
		return unreadService(strings.TrimSuffix(path, ")"))
	}
	return errors.New(text)
}

// unreadService says what is wrong with a service file, since pgx only names the file. pgx rejects
// a malformed line of any service in the file. libpq skips the other services.
func unreadService(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the service file: %w", err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '[' && strings.HasSuffix(line, "]") || strings.Contains(line, "=") {
			continue
		}
		return fmt.Errorf("line %d of the service file %s is not NAME=VALUE, [SERVICE] or a comment (which begins with #): correct or remove it", i+1, path)
	}
	return fmt.Errorf("the service file %s can't be read: check its form", path)
}
