package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
)

// checkConnection connects to the database.
func (e *examination) checkConnection(ctx context.Context) error {
	conn, err := open(ctx, e.Database, true)
	if err != nil {
		problem, remedy := e.Diagnose(err, e.Database.Source)
		if hint := connectHint(e.Database.Config.Host); hint != "" {
			remedy += "; " + hint
		}
		e.fail(remedy, "can't connect to %s: %s", e.Database.Where, problem)
		return nil
	}
	e.main = conn
	e.ok("connected to %s", e.Database.Where)
	return nil
}

// checkTLS looks at the connection as this machine sees it. What a pooler does behind itself can't
// be seen.
func (e *examination) checkTLS(context.Context) error {
	conn := e.main.PgConn().Conn()
	version := ""
	if secure, ok := conn.(*tls.Conn); ok {
		version = tls.VersionName(secure.ConnectionState().Version)
	}
	e.judgeTLS(conn.RemoteAddr(), version, e.main.Config().TLSConfig)
	return nil
}

// judgeTLS judges a connection of this TLS version; "": it is not encrypted.
func (e *examination) judgeTLS(remote net.Addr, version string, config *tls.Config) {
	const whole = "set sslmode=verify-full, and sslrootcert where the authority is not a public one, in "
	encrypted := "the connection is encrypted (" + version + "), and "
	verified := config != nil && !config.InsecureSkipVerify
	authority := config != nil && (config.VerifyPeerCertificate != nil || config.VerifyConnection != nil)
	switch {
	case version == "" && isLocal(remote):
		e.ok("the connection does not leave this machine, so it needs no TLS")
	case version == "":
		e.warn(whole+e.Database.Source, "the connection to %s is not encrypted: passwords and rows can be read on the way", remote)
	case verified:
		e.ok("%sthe server's certificate and its name are verified", encrypted)
	case authority:
		e.ok("%sthe server's certificate is of a trusted authority; the name in it is not compared with the host's, which only sslmode=verify-full does", encrypted)
	case isLocal(remote):
		e.ok("%sthe server's certificate is not verified, which a connection within this machine does not need", encrypted)
	default:
		e.warn(whole+e.Database.Source, "%sthe server's certificate is not verified: whoever is on the way to %s could answer in its place, and read passwords and rows", encrypted, remote)
	}
}

func isLocal(a net.Addr) bool {
	if a == nil || a.Network() == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(a.String())
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// slowTrip is a round trip that tells of a server in another region. Within a region it takes 1 ms
// or 2.
const slowTrip = 15 * time.Millisecond

// checkRoundTrip takes the fastest of a few, since a busy machine only makes them slower.
func (e *examination) checkRoundTrip(ctx context.Context) error {
	const trips = 5
	best := time.Hour
	for range trips {
		began := time.Now()
		if err := e.main.Ping(ctx); err != nil {
			return fmt.Errorf("ping the server: %w", err)
		}
		best = min(best, time.Since(began))
	}
	if best > slowTrip {
		e.warn("run the dispatcher in the region of the database", "a round trip to the server takes %s, and a delivery needs two before it is sent", round(best))
		return nil
	}
	e.ok("a round trip to the server takes %s", round(best))
	return nil
}

func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// newestTried is the newest major version that the tests run on.
const newestTried = 18

// checkServer tells what answers, and which version it is.
func (e *examination) checkServer(ctx context.Context) error {
	return e.look(ctx, func(tx pgx.Tx) error {
		var text, version string
		err := tx.QueryRow(ctx, "select version(), current_setting('server_version'), current_setting('server_version_num')::integer").Scan(&text, &version, &e.server)
		if err != nil {
			return fmt.Errorf("read the version of the server: %w", err)
		}
		if name := otherServer(text); name != "" {
			e.other = true
			e.fail("use a PostgreSQL server", "the server is %s, which speaks PostgreSQL's protocol and lacks what Rowhook needs of it, such as NOTIFY, triggers with transition tables and advisory locks", name)
			return nil
		}
		switch major := e.server / 10000; {
		case e.server < sqlschema.MinServerVersion:
			e.fail("upgrade it", "the server is PostgreSQL %s, and Rowhook needs %d to %d", version, sqlschema.MinServerVersion/10000, newestTried)
		case major > newestTried:
			e.warn("look for a newer Rowhook", "the server is PostgreSQL %s, and this program was tried with %d to %d", version, sqlschema.MinServerVersion/10000, newestTried)
		default:
			e.ok("the server is PostgreSQL %s", version)
		}
		return nil
	})
}

// otherServer names a server that is no PostgreSQL by its version(); "": it is one.
func otherServer(version string) string {
	for mark, name := range map[string]string{
		"CockroachDB": "CockroachDB", "-YB-": "YugabyteDB", "Redshift": "Amazon Redshift", "Spanner": "Spanner", "Materialize": "Materialize",
		"QuestDB": "QuestDB", "CrateDB": "CrateDB", "RisingWave": "RisingWave", "DSQL": "Amazon Aurora DSQL",
	} {
		if strings.Contains(version, mark) {
			return name
		}
	}
	return ""
}

// checkPrimary tells whether the database can be written to.
func (e *examination) checkPrimary(ctx context.Context) error {
	if e.server < sqlschema.MinServerVersion {
		return nil // it was said
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		if _, err := sqlschema.CheckServer(ctx, tx.Conn()); err != nil {
			e.standby = true
			e.failOf(err)
			return nil
		}
		e.ok("the database can be written to")
		return nil
	})
}

// platform is a service that runs PostgreSQL, with the sign by which its servers are known.
type platform struct{ name, sign, note string }

// platforms lists the signs in the order in which they decide: roles, settings and functions that
// each service adds.
var platforms = []platform{
	{"Amazon Aurora", "aurora_version", "connect to the cluster's writer endpoint: a reader can't be written to"},
	{"Amazon RDS", "rds_superuser", "connect to the instance and not to an RDS Proxy, at least in ROWHOOK_LISTEN_URL"},
	{"AlloyDB", "alloydbsuperuser", "connect to the primary instance, and not to its managed pool (port 6432), at least in ROWHOOK_LISTEN_URL"},
	{"Cloud SQL", "cloudsqlsuperuser", "connect to port 5432, directly or by the Auth Proxy, and not to its managed pool (port 6432), at least in ROWHOOK_LISTEN_URL"},
	{"Azure Database for PostgreSQL", "azure_pg_admin", "connect to port 5432, and not to its PgBouncer (port 6432), at least in ROWHOOK_LISTEN_URL"},
	{"Supabase", "supabase_admin", "connect directly or by the session pooler (port 5432), and not by the transaction pooler (port 6543), at least in ROWHOOK_LISTEN_URL"},
	{"Neon", "neon_superuser", "connect to the host without -pooler, at least in ROWHOOK_LISTEN_URL; a dispatcher writes once a second, so the compute does not scale to zero while one runs, and delivers nothing while none runs"},
	{"Timescale Cloud", "tsdbadmin", "connect to the service and not to its pooler, at least in ROWHOOK_LISTEN_URL"},
}

// checkPlatform tells whose server it is, and what is particular there.
func (e *examination) checkPlatform(ctx context.Context) error {
	return e.look(ctx, func(tx pgx.Tx) error {
		var signs []string
		err := tx.QueryRow(ctx, `
select array(select rolname::text from pg_roles where rolname = any($1)
             union select proname::text from pg_proc where proname = any($1) and proname <> 'version')`, signsOf(platforms)).Scan(&signs)
		if err != nil {
			return fmt.Errorf("look for the signs of services: %w", err)
		}
		for _, p := range platforms {
			if slices.Contains(signs, p.sign) {
				e.ok("the server is of %s: %s", p.name, p.note)
				return nil
			}
		}
		e.ok("the server has no signs of a service: it is taken for one of your own")
		return nil
	})
}

func signsOf(all []platform) (signs []string) {
	for _, p := range all {
		signs = append(signs, p.sign)
	}
	return signs
}

// The clock of this machine is in the signatures of requests, which receivers accept for five
// minutes, as Standard Webhooks says.
const (
	clockWarns = 5 * time.Second
	clockFails = 5 * time.Minute
)

// checkClock compares the clocks. The server's is read some time within a round trip, so half of
// the shortest one is the error.
func (e *examination) checkClock(ctx context.Context) error {
	const looks = 5
	var difference time.Duration
	trip := time.Hour
	err := e.look(ctx, func(tx pgx.Tx) error {
		for range looks {
			began, at := time.Now(), e.Now()
			var server time.Time
			if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&server); err != nil {
				return fmt.Errorf("read the server's clock: %w", err)
			}
			if took := time.Since(began); took < trip {
				trip, difference = took, at.Add(took/2).Sub(server)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	off := max(0, difference.Abs()-trip/2)
	which := "this machine's clock is %s " + map[bool]string{true: "ahead of", false: "behind"}[difference > 0] + " the server's"
	switch {
	case off >= clockFails:
		e.fail("set the clock that is wrong, by NTP", which+": receivers refuse signatures of another time, and times in events and logs do not fit", round(off))
	case off >= clockWarns:
		e.warn("set the clock that is wrong, by NTP", which+": signatures have this machine's time, and events the server's", round(off))
	default:
		e.ok("the clocks of this machine and of the server agree to %s", round(cmp.Or(max(off, trip/2), time.Microsecond)))
	}
	return nil
}
