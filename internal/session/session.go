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

	"github.com/rowhook/rowhook/internal/secret"
)

// FilePrefix begins a text that names a file, which holds the connection string:
// file:/run/secrets/database_url.
const FilePrefix = "file:"

// sourceFile is the key of RuntimeParams that holds the path of such a file until a connection is
// made. The server never sees it.
const sourceFile = "rowhook.source_file"

// load returns the connection string that a text is, or that the file has which it names.
func load(text string) (connection, path string, err error) {
	if !strings.HasPrefix(text, FilePrefix+"/") || strings.HasPrefix(text, FilePrefix+"//") {
		return text, "", nil
	}
	path = text[len(FilePrefix):]
	connection, err = secret.Read(path)
	return connection, path, err
}

// Parse reads a connection string: a URL, or keywords and values, or FilePrefix and the path of a
// file that holds it. If it is empty, the PG* variables say where to connect. Errors never repeat the
// string, which may hold a password.
func Parse(text string) (*pgx.ConnConfig, error) {
	text, path, err := load(text)
	if err == nil {
		text, err = clean(text)
	}
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
	settle(config, path)
	return config, nil
}

// ParsePool is Parse for a pool. Its connections are opened as by Connect.
func ParsePool(text string) (*pgxpool.Config, error) {
	text, path, err := load(text)
	if err == nil {
		text, err = clean(text)
	}
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
	settle(config.ConnConfig, path)
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

// settle sets what is the same for every session. path is that of the file with the connection
// string; "": there is none.
func settle(config *pgx.ConnConfig, path string) {
	if path != "" {
		config.RuntimeParams[sourceFile] = path
	}
	// Sessions use UTF-8. A role, a database or the environment may have set another encoding.
	// There, one text that could not be converted failed every claim, and names that are not ASCII
	// were garbled.
	config.RuntimeParams["client_encoding"] = "UTF8"
	// A cache has room from the start. That of pgx, for 512 statements, made up 40 % of the memory of a
	// process with a hundred idle databases.
	config.StatementCacheCapacity = min(config.StatementCacheCapacity, mostStatements)
	config.DescriptionCacheCapacity = min(config.DescriptionCacheCapacity, mostStatements)
}

// mostStatements is how many statements a session remembers. It is more than a dispatcher has.
const mostStatements = 128

// refresh reads again what may have been rotated since the string was parsed: the file with the
// string itself, the passfile, the service file and certificates. If a file can't be read now,
// because it is being written, its old content stays.
func refresh(_ context.Context, config *pgx.ConnConfig) error {
	text := config.ConnString()
	if path := config.RuntimeParams[sourceFile]; path != "" {
		text = FilePrefix + path
		delete(config.RuntimeParams, sourceFile)
	}
	fresh, err := Parse(text)
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
