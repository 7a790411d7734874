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

// form is what the cures of connection strings point at.
const form = "postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require" //nolint:gosec // it is a form

var (
	urlScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.:-]*://`)
	keyword   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
)

// clean takes off what shells, .env files and web pages put around a connection string, and refuses what is none. What pgx takes for keywords
// without a host would otherwise be looked for at a socket of this machine. No part of the string that may be a password is repeated.
func clean(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	text = strings.TrimSpace(text)
	for _, quote := range []string{`"`, "'", "`"} {
		if strings.HasPrefix(text, quote) != strings.HasSuffix(text, quote) && strings.HasPrefix(text, quote) || text == quote {
			return "", fmt.Errorf("it begins with a quote (%s) that does not end: leave the quotes away", quote)
		}
		if strings.HasPrefix(text, quote) {
			text = strings.TrimSpace(text[1 : len(text)-1])
			break
		}
	}
	if text == "" {
		return "", errors.New("there is nothing in it but blanks or quotes: leave it away, or write " + form)
	}
	if scheme := urlScheme.FindString(text); scheme != "" {
		return ofScheme(text, strings.TrimSuffix(scheme, "://"))
	}
	if strings.HasPrefix(text, "psql ") {
		return "", errors.New("it is a command, psql: give only the URL behind it, without its quotes")
	}
	if name, _, ok := strings.Cut(text, "="); !ok || !keyword.MatchString(strings.TrimSpace(name)) {
		return "", errors.New("it is neither a URL nor keywords and values (host=... dbname=...): write " + form)
	}
	return text, nil
}

// ofScheme judges a URL by what is before its ://.
func ofScheme(text, scheme string) (string, error) {
	rest := text[len(scheme):]
	plain := strings.ToLower(scheme)
	driver := ""
	if i := strings.IndexByte(plain, '+'); i >= 0 {
		plain, driver = plain[:i], scheme[i:]
	}
	switch {
	case strings.HasPrefix(plain, "jdbc:"):
		return "", errors.New(`it begins with "jdbc:", which is for Java: write ` + form + `, with user and password before the host`)
	case strings.Contains(plain, ":"): // who knows what that is
		return "", errors.New("it is no URL of Postgres: write " + form)
	case plain != "postgres" && plain != "postgresql":
		return "", fmt.Errorf("it begins with %q, which is no URL of Postgres: write %s", scheme+"://", form)
	case driver != "":
		return "", fmt.Errorf("%q in its beginning names a driver of another language: leave it away and write %s", driver, form)
	}
	return plain + rest, nil
}

// understand settles what libpq takes and pgx does not: it is given to the server as a setting otherwise, which does not know it.
// What can't be done, and what nobody knows, is refused by name.
func understand(config *pgx.ConnConfig) error {
	settings := config.RuntimeParams
	// The part behind the first @ passes for the host: it would be waited for, and logged.
	if strings.Contains(config.Host, "@") || slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool { return strings.Contains(f.Host, "@") }) {
		return errors.New("there is more than one @ before the host: write %40 for one in the user or the password")
	}
	for variable, name := range map[string]string{
		"PGHOSTADDR": "hostaddr", "PGREQUIREPEER": "requirepeer", "PGSSLCRL": "sslcrl", "PGSSLCRLDIR": "sslcrldir", "PGGSSENCMODE": "gssencmode",
		"PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version", "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version", "PGLOADBALANCEHOSTS": "load_balance_hosts",
	} {
		if value := os.Getenv(variable); value != "" && settings[name] == "" {
			settings[name] = value
		}
	}
	network := network{keepAlive: true}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names) // so that it is always the same mistake that is named first
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
		case slices.Contains(without[lower], value), slices.Contains(meaningless, lower), strings.HasPrefix(lower, "pool_"):
		case refused[lower] != "":
			err = fmt.Errorf("%s=... can't be done: %s", name, refused[lower])
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
		return errors.New("it has a parameter that is none of Postgres' (its name has characters that no name has): write " + form)
	}
	return fmt.Errorf("%q is no connection parameter: correct or remove it; for a setting of the server write options=-c%%20%[1]s%%3DVALUE in a URL, "+
		"options='-c %[1]s=VALUE' between keywords", name)
}

// without lists values that ask for nothing, of parameters that are refused otherwise.
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

// meaningless are parameters that change nothing here: sessions speak UTF-8 whatever is asked for, nobody compresses TLS any more, and there is no GSSAPI.
var meaningless = []string{"client_encoding", "sslcompression", "gsslib"}

// refused are parameters of libpq that are not understood, with what to do instead.
var refused = map[string]string{ //nolint:gosec // names of settings, and cures
	"gssencmode":          "there is no encryption by GSSAPI: use sslmode",
	"gssdelegation":       "there is no GSSAPI",
	"load_balance_hosts":  "hosts are tried in their order: leave it away",
	"replication":         "Rowhook needs an ordinary session: leave it away",
	"requiressl":          "write sslmode=require",
	"ssl":                 "write sslmode=require, or another mode of sslmode",
	"requirepeer":         "the owner of the server's process is not looked at: leave it away, or connect over TCP with sslmode=verify-full",
	"sslcrl":              "lists of revoked certificates are not looked at",
	"sslcrldir":           "lists of revoked certificates are not looked at",
	"sslkeylogfile":       "keys are not written to files",
	"scram_client_key":    "give the password, best in a passfile",
	"scram_server_key":    "give the password, best in a passfile",
	"oauth_issuer":        "there is no OAuth",
	"oauth_client_id":     "there is no OAuth",
	"oauth_client_secret": "there is no OAuth",
	"oauth_scope":         "there is no OAuth",
	"schema":              "it is another program's; Rowhook's schema is always rowhook",
	"pgbouncer":           "it is another program's: behind a pooler set ROWHOOK_LISTEN_URL to a way straight to Postgres, and leave this away",
	"connection_limit":    "it is another program's: leave it away",
}

// serverSettings are those that a connection string may give the server by their own names, as pgx allows.
var serverSettings = []string{
	"application_name", "options", "search_path", "timezone", "datestyle", "intervalstyle", "role", "session_authorization", "work_mem", "maintenance_work_mem",
	"temp_buffers", "statement_timeout", "lock_timeout", "transaction_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
	"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable", "synchronous_commit", "extra_float_digits",
	"bytea_output", "client_min_messages", "jit", "plan_cache_mode", "enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin",
	"enable_nestloop", "enable_indexscan", "random_page_cost", "row_security", "geqo", "standard_conforming_strings", "tcp_keepalives_idle",
	"tcp_keepalives_interval", "tcp_keepalives_count", "client_connection_check_interval", "log_statement", "log_min_duration_statement",
	"max_parallel_workers_per_gather", "force_parallel_mode", "debug_parallel_query", "crdb_version",
}

// network is what a connection string says of TCP. 0: nothing, so that ours holds.
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
		return fmt.Errorf("%s: want a whole number", name)
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
		return nil // every session has one of ours
	default:
		return unknown(name)
	}
	return nil
}

// dialer is ours with that.
func (n *network) dialer(timeout time.Duration) *net.Dialer {
	dialer := newDialer(timeout)
	k := &dialer.KeepAliveConfig
	k.Idle, k.Interval, k.Count = cmp.Or(n.idle, k.Idle), cmp.Or(n.interval, k.Interval), cmp.Or(n.count, k.Count)
	if !n.keepAlive {
		dialer.KeepAliveConfig, dialer.KeepAlive = net.KeepAliveConfig{}, -1
	}
	return dialer
}

// limitTLS sets the least or highest version of TLS.
func limitTLS(config *pgx.ConnConfig, name, value string) error {
	version, known := map[string]uint16{
		"": 0, "tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13,
	}[strings.ToLower(value)]
	least, highest := name == "ssl_min_protocol_version", name == "ssl_max_protocol_version"
	switch {
	case !least && !highest:
		return unknown(name)
	case !known:
		return fmt.Errorf("%s: want one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3", name)
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

// fixAddress has hosts looked up as the connection string says, while certificates are held to their names.
func fixAddress(config *pgx.ConnConfig, value string) error {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		if !slices.Contains(hosts, f.Host) {
			hosts = append(hosts, f.Host)
		}
	}
	addresses := strings.Split(value, ",")
	if strings.HasPrefix(config.Host, "/") {
		return errors.New("hostaddr without host: write the address as the host, or name the host as well")
	}
	if len(addresses) != len(hosts) {
		return fmt.Errorf("hostaddr: there are %d addresses for %d hosts", len(addresses), len(hosts))
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
