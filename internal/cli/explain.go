package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/doctor"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/webhook"
)

// diagnosis is what is wrong and what to do about it. In a remedy {} stands for the flag or
// variable that named the database.
type diagnosis struct{ problem, remedy string }

func (d diagnosis) remedyFor(source string) string { return strings.ReplaceAll(d.remedy, "{}", source) }

// diagnoseConnect says why a connection failed. transient reports that it may pass: a server that
// starts first has no address, then refuses connections, then says that it is starting up.
func diagnoseConnect(err error) (what diagnosis, transient bool) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return diagnoseRefusal(pg)
	}
	if errors.Is(err, pgconn.ErrReadOnlyConnection) || strings.Contains(err.Error(), pgconn.ErrReadOnlyConnection.Error()) ||
		strings.Contains(err.Error(), pgconn.ErrStandbyConnection.Error()) {
		return diagnosis{"no host accepts writes, which target_session_attrs requires", "wait for a primary, or correct the hosts in {}"}, true
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return diagnosis{fmt.Sprintf("the host %q has no address (DNS)", dns.Name), "correct the host in {}, or check the name server"}, true
	case errors.As(err, &dns):
		return diagnosis{fmt.Sprintf("can't look up the address of the host %q (%s)", dns.Name, dns.Err), "check the network and the name server, or the host in {}"}, true
	case strings.Contains(err.Error(), "server refused TLS connection"):
		return diagnosis{"the server does not support TLS, which sslmode requires", "set sslmode=disable in {} if the network can be trusted, or turn ssl on in the server"}, false
	case webhook.IsTLS(err): // of several addresses, the one that answers says more than those that refuse
		return diagnoseTLS(err), false
	case errors.Is(err, syscall.ECONNREFUSED):
		return diagnosis{"nothing listens there (connection refused)", "start Postgres, or correct host and port in {}"}, true
	case errors.Is(err, syscall.ENOENT):
		return diagnosis{"there is no such socket", "start Postgres, or name its host in {}"}, true
	case errors.Is(err, syscall.EACCES):
		return diagnosis{"permission to use the socket is denied", "run as a user who may use it, or connect over TCP in {}"}, false
	case isAny(err, syscall.EHOSTUNREACH, syscall.ENETUNREACH):
		return diagnosis{"there is no route to that host", "check the network, or correct the host in {}"}, true
	case pgconn.Timeout(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return diagnosis{"the server did not answer in time", "check the network and its firewalls, or correct host and port in {}"}, true
	case isAny(err, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE):
		return diagnosis{"the connection was closed before the server answered", "check that Postgres listens at the address in {}"}, true
	}
	if lost := (*lostError)(nil); errors.As(err, &lost) {
		return diagnosis{lastLine(err), "check the server's log and the network, and start again"}, true
	}
	return diagnosis{lastLine(err), "check {}"}, false
}

// diagnoseTLS says why the server's certificate is not trusted, or why there is no TLS.
func diagnoseTLS(err error) diagnosis {
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		names := slices.Clone(wrong.Certificate.DNSNames)
		for _, ip := range wrong.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return diagnosis{fmt.Sprintf("the server's certificate is for %s, and not for the host %q", cmp.Or(strings.Join(names, ", "), "no name"), wrong.Host),
			"write a host of the certificate in {}, or set sslmode=verify-ca, which does not compare the name"}
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return diagnosis{"the server's certificate is not signed by an authority that is trusted here (" + unknown.Error() + ")",
			"set sslrootcert in {} to the file with the certificate of the authority that has signed the server's"}
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return diagnosis{"the server's certificate has expired, or is not valid yet (" + invalid.Error() + ")", "renew the server's certificate, or correct this machine's clock"}
	}
	return diagnosis{"no trusted TLS connection (" + lastLine(err) + ")", "name the certificate authority with sslrootcert, or correct sslmode and the host in {}"}
}

// diagnoseRefusal explains an error with which the server answered an attempt to connect.
func diagnoseRefusal(pg *pgconn.PgError) (what diagnosis, transient bool) {
	answer := "the server says: " + pg.Message
	switch pg.Code {
	case pgerrcode.InvalidPassword:
		return diagnosis{"wrong password, or no such user", "correct user and password in {} (percent-encoded in a URL), PGPASSWORD or ~/.pgpass"}, false
	case pgerrcode.InvalidAuthorizationSpecification:
		switch {
		case strings.Contains(pg.Message, "does not exist"):
			return diagnosis{answer, "correct the user in {}, or create the role"}, false
		case strings.Contains(pg.Message, "no encryption"), strings.Contains(pg.Message, "SSL off"):
			return diagnosis{answer, "set sslmode=require in {}, since the server requires TLS, or allow connections without TLS in pg_hba.conf"}, false
		}
		return diagnosis{answer, "correct user, database and sslmode in {}, or allow them in the server's pg_hba.conf"}, false
	case pgerrcode.InvalidCatalogName:
		return diagnosis{"there is no such database", "correct its name in {}, or create it with createdb"}, false
	case pgerrcode.TooManyConnections:
		return diagnosis{"the server has no free connection", "raise max_connections (or the role's connection limit), or close idle clients"}, true
	case pgerrcode.CannotConnectNow:
		return diagnosis{answer, "wait until it has started; if it does not start, check its log"}, true
	case pgerrcode.AdminShutdown, pgerrcode.CrashShutdown:
		return diagnosis{answer, "start it again"}, true
	case pgerrcode.ProtocolViolation:
		if doctor.IsStatementPooling(pg) {
			return diagnosis{answer, doctor.StatementPooling}, false
		}
		if strings.Contains(pg.Message, "unsupported startup parameter") {
			return diagnosis{answer, "{} seems to lead through a pooler: set ROWHOOK_LISTEN_URL to a direct connection to Postgres, or poll with --no-listen"}, false
		}
	case pgerrcode.InsufficientPrivilege:
		return diagnosis{answer, "grant it (grant connect on database ... to ...), or use another role in {}"}, false
	}
	return diagnosis{fmt.Sprintf("%s (SQLSTATE %s)", answer, pg.Code), "check {}"}, false
}

// explain adds a remedy to an error of the database.
func explain(err error) error { return explainOf(err, databaseURLVariable) }

// explainOf is explain for a database that origin has named: a flag, a variable or a key of the file.
func explainOf(err error, origin string) error {
	var connect *pgconn.ConnectError
	var refused *pgconn.PgError
	var hidden *queue.HiddenRowsError
	switch err = queue.ExplainHidden(err); {
	case err == nil:
		return nil
	case errors.As(err, &hidden):
		return err
	case errors.As(err, &connect):
		what, _ := diagnoseConnect(err)
		return fmt.Errorf("can't connect to Postgres at %s: %s; %s", address(connect.Config.Host, connect.Config.Port), what.problem,
			what.remedyFor(origin))
	case !errors.As(err, &refused):
		return err
	}
	remedy := ""
	switch refused.Code {
	case pgerrcode.ReadOnlySQLTransaction:
		remedy = "Rowhook must write: connect to the primary, as a role whose default_transaction_read_only is off"
	case pgerrcode.InsufficientPrivilege:
		if strings.Contains(err.Error(), "grant ") {
			return err // it has a remedy
		}
		remedy = "use the role that installed Rowhook, or grant this role the missing right"
	case pgerrcode.InvalidSchemaName, pgerrcode.UndefinedTable, pgerrcode.UndefinedColumn, pgerrcode.UndefinedFunction:
		if !strings.Contains(refused.Message, "rowhook") {
			return err
		}
		remedy = "the schema rowhook is missing or damaged: run \"rowhook apply\""
	case pgerrcode.ProtocolViolation:
		if !doctor.IsStatementPooling(refused) {
			return err
		}
		remedy = doctor.StatementPooling
	case pgerrcode.DiskFull:
		remedy = "the server's disk is full: free some space"
	case pgerrcode.TooManyConnections:
		remedy = "the server has no free connection: raise max_connections, or close idle clients"
	case pgerrcode.LockNotAvailable:
		remedy = "another session holds a lock on the table: find it in pg_stat_activity, and try again when it has ended"
	case pgerrcode.AdminShutdown, pgerrcode.CrashShutdown, pgerrcode.CannotConnectNow:
		remedy = "the server is stopping or starting: try again when it is back"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, remedy)
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// lastLine returns the last line of an error. An error of several attempts has a line for each host
// and sslmode.
func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
