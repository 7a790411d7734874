package rowhooktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Variables of the environment that Start reads. Those of the private server are the same as for
// rowhook dev.
const (
	// ServerVariable names the server of the tests where no [Server] option does: the connection
	// string of any of its databases, for a role that may create databases.
	ServerVariable = "ROWHOOK_TEST_SERVER"
	// BinariesVariable is the directory of the Postgres programs of the private server. By default
	// it searches PATH, pg_config and the usual places, and downloads them if there are none.
	BinariesVariable = "ROWHOOK_POSTGRES_BIN"
	// OfflineVariable, if it is true, forbids that download.
	OfflineVariable = "ROWHOOK_NO_DOWNLOAD"
)

// DefaultTimeout is how long Wait and the others wait for what must happen.
const DefaultTimeout = 10 * time.Second

// Option says something about the harness that [Start] makes.
type Option func(*options) error

type options struct {
	file, config   string // a path, and a text
	scripts        []source
	migrations     []migration
	version        string
	server, ownURL string
	template       string
	timeout        time.Duration
	env            map[string]string
}

// source is a path of SQL files or, without one, SQL.
type source struct{ path, text string }

// migration is a function that makes tables. Without sources nothing tells whether it has changed.
type migration struct {
	run     func(ctx context.Context, databaseURL string) error
	sources []fs.FS
}

func collect(given []Option) (options, error) {
	o := options{timeout: DefaultTimeout, env: map[string]string{}}
	for i, option := range given {
		if option == nil {
			return o, fmt.Errorf("option %d of %d is nil: leave it out", i+1, len(given))
		}
		if err := option(&o); err != nil {
			return o, err
		}
	}
	switch {
	case o.file == "" && o.config == "":
		return o, errNoConfiguration
	case o.file != "" && o.config != "":
		return o, errors.New("File and Config exclude each other: leave one of them out")
	case o.ownURL != "" && o.server != "":
		return o, errors.New("Database and Server exclude each other: Database is used as it is, and on Server a database is made")
	case o.ownURL != "" && o.template != "":
		return o, errors.New("Database and Template exclude each other: Database is used as it is")
	}
	return o, nil
}

// File names the configuration: a rowhook.yaml, or a directory of such files. A path is relative to
// the directory of the test's package.
func File(path string) Option {
	return func(o *options) error {
		if path == "" || o.file != "" {
			return fmt.Errorf("File(%q): name one file or directory", path)
		}
		o.file = path
		return nil
	}
}

// Config is the text of the configuration, as in rowhook.yaml.
func Config(yaml string) Option {
	return func(o *options) error {
		if yaml == "" || o.config != "" {
			return errors.New("Config: give one text")
		}
		o.config = yaml
		return nil
	}
}

// Schema names SQL files that make the tables, and directories of such files, which are taken in the
// order of their names. They run in the order of the options, before the triggers are applied. A
// file is one transaction, unless it has its own.
func Schema(paths ...string) Option {
	return func(o *options) error {
		for _, path := range paths {
			o.scripts = append(o.scripts, source{path: path})
		}
		return nil
	}
}

// SQL is a text that runs like a file of [Schema].
func SQL(text string) Option {
	return func(o *options) error {
		o.scripts = append(o.scripts, source{text: text})
		return nil
	}
}

// Migrate makes the tables by a function, which gets the connection string of an empty database. It
// runs after [Schema] and before the triggers are applied.
//
// If sources are given, such as the embedded directory of migrations that the function reads, it
// runs once: databases are copied from one that was migrated, as long as the sources are the same.
// A [Version] does the same for migrations that are code. Without either, it runs for every test.
func Migrate(migrate func(ctx context.Context, databaseURL string) error, sources ...fs.FS) Option {
	return func(o *options) error {
		if migrate == nil {
			return errors.New("Migrate: the function is nil")
		}
		if slices.Contains(sources, nil) {
			return errors.New("Migrate: one of the sources is nil")
		}
		o.migrations = append(o.migrations, migration{migrate, sources})
		return nil
	}
}

// Version is a text that changes whenever what [Migrate] does, or the content of the database that
// [Template] names, changes. Databases are copied from one that was made under the same version.
func Version(version string) Option {
	return func(o *options) error { o.version = version; return nil }
}

// Server names the server on which the test's database is made: the connection string of any of its
// databases, for a role that may create databases. It need not be a superuser. The database is
// dropped at the end of the test. That of a failed test stays for a day. The template that it is
// cloned from stays, and is dropped by a later run when it was not used for a day. Each role has
// templates of its own, so several may share a server.
func Server(url string) Option {
	return func(o *options) error {
		if url == "" {
			return errors.New("Server: the connection string is empty")
		}
		o.server = url
		return nil
	}
}

// Database names a database that the caller has made for this test, as pgtestdb does. Start runs the
// [Schema] in it, installs Rowhook, and applies the triggers, all unless it is there already; see
// [Install]. It does not drop the database. It fails while another harness uses the database.
func Database(url string) Option {
	return func(o *options) error {
		if url == "" {
			return errors.New("Database: the connection string is empty")
		}
		o.ownURL = url
		return nil
	}
}

// Template names the database that the test's database begins as, with the extensions and settings
// that it has. Nobody may be connected to it. By default it is template1, as for createdb. Tests get
// its content once: it is copied again when it was dropped and made anew, or with another [Version].
func Template(name string) Option {
	return func(o *options) error { o.template = name; return nil }
}

// Timeout is how long [Harness.Wait] and the others wait, instead of [DefaultTimeout]. They end before
// the test's own deadline in any case.
func Timeout(d time.Duration) Option {
	return func(o *options) error {
		if d <= 0 {
			return fmt.Errorf("Timeout(%s): it must be more than 0", d)
		}
		o.timeout = d
		return nil
	}
}

// Env sets a variable that the configuration refers to as ${NAME}. It goes before the process's
// environment. So parallel tests may have different ones. Secrets that are not set anywhere are made
// up; see [Harness.Secret].
func Env(name, value string) Option {
	return func(o *options) error { o.env[name] = value; return nil }
}
