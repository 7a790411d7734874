package session

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// form is the form of a connection string, for messages.
const form = "postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require" //nolint:gosec // a form

var (
	urlScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.:-]*://`)
	keyword   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
)

// clean removes what shells, .env files and web pages put around a connection string, and rejects a
// text that is not a connection string. Without this, pgx reads many texts as keywords without a
// host, and connects to a socket of this machine. Errors repeat no part of the string that may be a
// password.
func clean(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	text = strings.TrimSpace(text)
	for _, quote := range []string{`"`, "'", "`"} {
		if strings.HasPrefix(text, quote) != strings.HasSuffix(text, quote) && strings.HasPrefix(text, quote) || text == quote {
			return "", fmt.Errorf("it begins with a quote (%s) that is not closed: remove the quotes", quote)
		}
		if strings.HasPrefix(text, quote) {
			text = strings.TrimSpace(text[1 : len(text)-1])
			break
		}
	}
	if text == "" {
		return "", errors.New("it is nothing but blanks or quotes: remove it, or write " + form)
	}
	if scheme := urlScheme.FindString(text); scheme != "" {
		return ofScheme(text, strings.TrimSuffix(scheme, "://"))
	}
	if strings.HasPrefix(text, "psql ") {
		return "", errors.New("it is a psql command: use only the URL in it, without quotes")
	}
	if name, _, ok := strings.Cut(text, "="); !ok || !keyword.MatchString(strings.TrimSpace(name)) {
		return "", errors.New("it is neither a URL nor keywords and values (host=... dbname=...): write " + form)
	}
	return text, nil
}

// ofScheme checks the scheme of a URL, and returns the URL with the scheme in lower case.
func ofScheme(text, scheme string) (string, error) {
	rest := text[len(scheme):]
	plain := strings.ToLower(scheme)
	driver := ""
	if i := strings.IndexByte(plain, '+'); i >= 0 {
		plain, driver = plain[:i], scheme[i:]
	}
	switch {
	case strings.HasPrefix(plain, "jdbc:"):
		return "", errors.New(`it begins with "jdbc:", which only Java understands: write ` + form + `, with user and password in front of the host`)
	case strings.Contains(plain, ":"): // several schemes
		return "", errors.New("it is not a Postgres URL: write " + form)
	case plain != "postgres" && plain != "postgresql":
		return "", fmt.Errorf("it begins with %q, which is not a Postgres URL: write %s", scheme+"://", form)
	case driver != "":
		return "", fmt.Errorf("%q in its scheme names a driver of another language: remove it and write %s", driver, form)
	}
	return plain + rest, nil
}

// understand handles the parameters that libpq knows and pgx does not. pgx would send them to the
// server as settings, and the server would reject them. A parameter that can't be honored, or that
// nobody knows, is an error that names it.
func understand(config *pgx.ConnConfig) error {
	settings := config.RuntimeParams
	// pgx takes the text behind the first @ for the host. It would look it up and log it.
	if strings.Contains(config.Host, "@") || slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool { return strings.Contains(f.Host, "@") }) {
		return errors.New("there is more than one @ in front of the host: write %40 for an @ in the user or the password")
	}
	for variable, name := range map[string]string{
		"PGHOSTADDR": "hostaddr", "PGREQUIREPEER": "requirepeer", "PGSSLCRL": "sslcrl", "PGSSLCRLDIR": "sslcrldir", "PGGSSENCMODE": "gssencmode",
		"PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version", "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version", "PGLOADBALANCEHOSTS": "load_balance_hosts",
	} {
		if _, given := settings[name]; given {
			continue // even if it is empty, as for libpq
		}
		if value := os.Getenv(variable); value != "" {
			settings[name] = value
		}
	}
	network := network{keepAlive: true}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names) // so that of several faults the same one is always reported
	for _, name := range names {
		value := settings[name]
		lower := strings.ToLower(name)
		keep, err := false, error(nil)
		switch {
		case strings.HasPrefix(lower, "keepalives") || lower == "tcp_user_timeout":
			err = network.set(lower, value)
		case strings.HasPrefix(lower, "ssl_m"):
			err = limitTLS(config, lower, value)
		case lower == "hostaddr":
			err = fixAddress(config, value)
		case lower == "fallback_application_name":
			if settings["application_name"] == "" {
				settings["application_name"] = value
			}
		case lower == "timezone" && value == "": // none: it keeps PGTZ from setting one
		case slices.Contains(without[lower], value), slices.Contains(meaningless, lower), strings.HasPrefix(lower, "pool_"):
		case refused[lower] != "":
			err = fmt.Errorf("%s=... is not supported: %s", name, refused[lower])
		default:
			if keep = slices.Contains(serverSettings, lower) || strings.Contains(name, ".") && keyword.MatchString(name); !keep {
				err = unknown(name)
			}
		}
		if err != nil {
			return err
		}
		if !keep {
			delete(settings, name)
		}
	}
	config.DialFunc = network.dialer(config.ConnectTimeout).DialContext
	return nil
}

func unknown(name string) error {
	if !keyword.MatchString(name) {
		return errors.New("it has a parameter whose name has characters that no parameter of Postgres has: write " + form)
	}
	return fmt.Errorf("%q is not a connection parameter: correct or remove it; for a setting of the server write options=-c%%20%[1]s%%3DVALUE in a URL, "+
		"options='-c %[1]s=VALUE' between keywords", name)
}

// without holds the values of rejected parameters that ask for nothing.
var without = map[string][]string{
	"gssencmode":         {"", "disable", "prefer"},
	"gssdelegation":      {"", "0"},
	"load_balance_hosts": {"", "disable"},
	"replication":        {"", "false", "off", "no", "0"},
	"requiressl":         {"", "0"},
	"requirepeer":        {""},
	"sslcrl":             {""},
	"sslcrldir":          {""},
}

// meaningless are parameters that have no effect here. Sessions always use UTF-8, TLS is never
// compressed, and GSSAPI is not supported.
var meaningless = []string{"client_encoding", "sslcompression", "gsslib"}

// refused are parameters of libpq that are not supported, with what to do instead.
var refused = map[string]string{ //nolint:gosec // names of settings, and cures
	"gssencmode":          "encryption by GSSAPI does not exist here: use sslmode",
	"gssdelegation":       "GSSAPI does not exist here: remove it",
	"load_balance_hosts":  "hosts are tried in their order: remove it",
	"replication":         "Rowhook needs an ordinary session: remove it",
	"requiressl":          "write sslmode=require",
	"ssl":                 "write sslmode=require, or another mode of sslmode",
	"requirepeer":         "the owner of the server's process is not checked: remove it, or connect over TCP with sslmode=verify-full",
	"sslcrl":              "lists of revoked certificates are not checked: remove it",
	"sslcrldir":           "lists of revoked certificates are not checked: remove it",
	"sslkeylogfile":       "keys are not written to files: remove it",
	"scram_client_key":    "use the password, preferably in a passfile",
	"scram_server_key":    "use the password, preferably in a passfile",
	"oauth_issuer":        "OAuth does not exist here: use a password or a certificate",
	"oauth_client_id":     "OAuth does not exist here: use a password or a certificate",
	"oauth_client_secret": "OAuth does not exist here: use a password or a certificate",
	"oauth_scope":         "OAuth does not exist here: use a password or a certificate",
	"schema":              "it is a parameter of another program, and Rowhook's schema is always rowhook: remove it",
	"pgbouncer":           "it is a parameter of another program: remove it, and behind a pooler set ROWHOOK_LISTEN_URL to a direct connection to Postgres",
	"connection_limit":    "it is a parameter of another program: remove it",
}

// serverSettings are the settings of the server that a connection string may hold under their own
// names, as in pgx.
var serverSettings = []string{
	"application_name", "options", "search_path", "timezone", "datestyle", "intervalstyle", "role", "session_authorization", "work_mem", "maintenance_work_mem",
	"temp_buffers", "statement_timeout", "lock_timeout", "transaction_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
	"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable", "synchronous_commit", "extra_float_digits",
	"bytea_output", "client_min_messages", "jit", "plan_cache_mode", "enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin",
	"enable_nestloop", "enable_indexscan", "random_page_cost", "row_security", "geqo", "standard_conforming_strings", "tcp_keepalives_idle",
	"tcp_keepalives_interval", "tcp_keepalives_count", "client_connection_check_interval", "log_statement", "log_min_duration_statement",
	"max_parallel_workers_per_gather", "force_parallel_mode", "debug_parallel_query", "crdb_version",
}

// network holds the TCP parameters of a connection string. 0 leaves the default of newDialer.
type network struct {
	keepAlive      bool
	idle, interval time.Duration
	count          int
}

func (n *network) set(name, value string) error {
	if value == "" {
		return nil
	}
	number, err := strconv.Atoi(value)
	if err != nil || number < 0 {
		return fmt.Errorf("%s: write a whole number that is not negative", name)
	}
	switch name {
	case "keepalives":
		n.keepAlive = number != 0
	case "keepalives_idle":
		n.idle = time.Duration(number) * time.Second
	case "keepalives_interval":
		n.interval = time.Duration(number) * time.Second
	case "keepalives_count":
		n.count = number
	case "tcp_user_timeout":
		return nil // newDialer sets it for every session
	default:
		return unknown(name)
	}
	return nil
}

// dialer returns newDialer with these parameters.
func (n *network) dialer(timeout time.Duration) *net.Dialer {
	dialer := newDialer(timeout)
	k := &dialer.KeepAliveConfig
	k.Idle, k.Interval, k.Count = cmp.Or(n.idle, k.Idle), cmp.Or(n.interval, k.Interval), cmp.Or(n.count, k.Count)
	if !n.keepAlive {
		dialer.KeepAliveConfig, dialer.KeepAlive = net.KeepAliveConfig{}, -1
	}
	return dialer
}

// limitTLS sets the lowest or highest version of TLS.
func limitTLS(config *pgx.ConnConfig, name, value string) error {
	version, known := map[string]uint16{
		"": 0, "tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13,
	}[strings.ToLower(value)]
	least, highest := name == "ssl_min_protocol_version", name == "ssl_max_protocol_version"
	switch {
	case !least && !highest:
		return unknown(name)
	case !known:
		return fmt.Errorf("%s: write one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3", name)
	}
	all := []*tls.Config{config.TLSConfig}
	for _, f := range config.Fallbacks {
		all = append(all, f.TLSConfig)
	}
	for _, c := range all {
		if c == nil {
			continue
		}
		if least {
			c.MinVersion = version
		} else {
			c.MaxVersion = version
		}
	}
	return nil
}

// fixAddress makes hosts resolve to the addresses of hostaddr. Certificates are still checked
// against the names of the hosts.
func fixAddress(config *pgx.ConnConfig, value string) error {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		if !slices.Contains(hosts, f.Host) {
			hosts = append(hosts, f.Host)
		}
	}
	addresses := strings.Split(value, ",")
	if strings.HasPrefix(config.Host, "/") {
		return errors.New("hostaddr is set without host: write the address as the host, or set host, too")
	}
	if len(addresses) != len(hosts) {
		return fmt.Errorf("hostaddr has %d addresses for %d hosts: write one for each host, separated by commas", len(addresses), len(hosts))
	}
	before := config.LookupFunc
	config.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		if i := slices.Index(hosts, host); i >= 0 && addresses[i] != "" {
			return []string{strings.TrimSpace(addresses[i])}, nil
		}
		return before(ctx, host)
	}
	return nil
}
