package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/session"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestTheClockIsComparedWithTheServers(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	config, err := session.Parse(db.URL())
	require.NoError(t, err)
	for _, c := range []struct {
		off   time.Duration
		state State
		says  string
	}{
		{0, OK, "agree to"},
		{2 * time.Minute, Warn, "this machine's clock is 2m0s ahead of the server's"},
		{-2 * time.Minute, Warn, "this machine's clock is 2m0s behind the server's"},
		{time.Hour, Fail, "this machine's clock is 1h0m0s ahead of the server's"},
	} {
		d := Doctor{
			Database: Endpoint{Config: config, Source: "DATABASE_URL", Where: "here"}, Timeout: time.Minute,
			Diagnose: func(err error, _ string) (problem, remedy string) { return err.Error(), "" },
			Now:      func() time.Time { return time.Now().Add(c.off) },
		}
		found := false
		for _, f := range d.Examine(t.Context()).Findings {
			if f.Check == "clock" {
				found = true
				require.Equal(t, c.state, f.State, f.Detail)
				require.Contains(t, f.Detail, c.says)
			}
		}
		require.True(t, found)
	}
}

func TestPoolersOfServicesAreKnownByTheirAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		host    string
		port    uint16
		name    string
		session bool
		direct  string
	}{
		{"ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech", 5432, "Neon's pooler", false, "ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech"},
		{"ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech", 5432, "", false, ""},
		{"EP-x-POOLER.c-2.eu-central-1.aws.neon.tech.", 5432, "Neon's pooler", false, "ep-x.c-2.eu-central-1.aws.neon.tech"},
		{"aws-0-eu-central-1.pooler.supabase.com", 6543, "Supavisor in transaction mode", false, "port 5432"},
		{"aws-0-eu-central-1.pooler.supabase.com", 5432, "Supavisor in session mode", true, ""},
		{"db.abcdefgh.supabase.co", 6543, "Supabase's dedicated PgBouncer", false, "port 5432"},
		{"db.abcdefgh.supabase.co", 5432, "", false, ""},
		{"shop.proxy-abc123.eu-west-1.rds.amazonaws.com", 5432, "an RDS Proxy", false, "endpoint"},
		{"shop.abc123.eu-west-1.rds.amazonaws.com", 5432, "", false, ""},
		{"shop.postgres.database.azure.com", 6432, "Azure's PgBouncer", false, "port 5432"},
		{"my-pooler.example.com", 5432, "", false, ""},
		{"/var/run/postgresql", 5432, "", false, ""},
		{"127.0.0.1", 6432, "", false, ""},
	} {
		got := poolerOf(c.host, c.port)
		require.Equal(t, c.name, got.name, c.host)
		require.Equal(t, c.session, got.session, c.host)
		require.Contains(t, got.direct, c.direct, c.host)
	}
}

func TestServersThatOnlySpeakTheProtocolAreTold(t *testing.T) {
	t.Parallel()
	for text, name := range map[string]string{
		"PostgreSQL 15.8 (Debian 15.8-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc": "",
		"PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu":                           "YugabyteDB",
		"CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu)":                                  "CockroachDB",
		"PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.63205":      "Amazon Redshift",
	} {
		require.Equal(t, name, otherServer(text), text)
	}
}

// A connection within this machine needs no certificate, and tests have no other. So the judgement is
// given another machine's address.
func TestAConnectionFromAnotherMachineNeedsAVerifiedCertificate(t *testing.T) {
	t.Parallel()
	far, near := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5432}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5432}
	verify := func([][]byte, [][]*x509.Certificate) error { return nil }
	for _, c := range []struct {
		remote  net.Addr
		version string
		config  *tls.Config
		state   State
		says    string
	}{
		{near, "", nil, OK, "does not leave this machine"},
		{far, "", nil, Warn, "to 192.0.2.1:5432 is not encrypted"},
		{far, "TLS 1.3", &tls.Config{InsecureSkipVerify: true}, Warn, "whoever is on the way to 192.0.2.1:5432 could answer in its place"},
		{near, "TLS 1.3", &tls.Config{InsecureSkipVerify: true}, OK, "does not need"},
		{far, "TLS 1.3", &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: verify}, OK, "the name in it is not compared"},
		{far, "TLS 1.3", &tls.Config{ServerName: "db.example"}, OK, "the server's certificate and its name are verified"},
	} {
		e := &examination{Doctor: Doctor{Database: Endpoint{Source: "DATABASE_URL"}}, report: &Report{}}
		e.judgeTLS(c.remote, c.version, c.config)
		require.Equal(t, c.state, e.report.Findings[0].State, c.says)
		require.Contains(t, e.report.Findings[0].Detail, c.says)
		if c.state != OK {
			require.Contains(t, e.report.Findings[0].Remedy, "set sslmode=verify-full, and sslrootcert where the authority is not a public one, in DATABASE_URL")
		}
	}
}
