package session_test

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/session"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestWhatIsPutAroundAConnectionStringIsTakenOff(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://u:hunter2@db.example:6543/shop?sslmode=disable",
		`"postgres://u:hunter2@db.example:6543/shop?sslmode=disable"`,
		`'postgresql://u:hunter2@db.example:6543/shop?sslmode=disable'`,
		" \tpostgres://u:hunter2@db.example:6543/shop?sslmode=disable\r\n",
		"\n\" postgres://u:hunter2@db.example:6543/shop?sslmode=disable \"\n",
		"POSTGRES://u:hunter2@db.example:6543/shop?sslmode=disable",
		"host=db.example port=6543 user=u password='hunter2' dbname=shop sslmode=disable",
		`"host=db.example port=6543 user=u password=hunter2 dbname=shop sslmode=disable"`,
		"\thost = db.example port=6543 user=u password=hunter2 dbname=shop sslmode=disable\n",
	} {
		c, err := session.Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, "db.example:6543 u hunter2 shop", fmt.Sprintf("%s:%d %s %s %s", c.Host, c.Port, c.User, c.Password, c.Database), text)
		p, err := session.ParsePool(text)
		require.NoError(t, err, text)
		require.Equal(t, "hunter2", p.ConnConfig.Password, text)
	}
}

func TestWhatIsNoConnectionStringIsRefusedWithoutItsPassword(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"jdbc:postgresql://db.example:5432/shop?user=u&password=hunter2": "Java",
		"JDBC:postgresql://u:hunter2@db.example/shop":                    "Java",
		"postgresql+asyncpg://u:hunter2@db.example/shop":                 `"+asyncpg"`,
		"postgres+psycopg2://u:hunter2@db.example/shop":                  `"+psycopg2"`,
		"mysql://u:hunter2@db.example/shop":                              `"mysql://"`,
		"u:hunter2@db.example/shop?sslmode=require":                      "neither a URL nor keywords",
		"u:hunter2@db.example/shop":                                      "neither a URL nor keywords",
		"u:hunter2://db.example/shop":                                    "not a Postgres URL",
		"psql 'postgres://u:hunter2@db.example/shop'":                    "psql",
		`"postgres://u:hunter2@db.example/shop`:                          "quote",
		"'":                                                              "quote",
		"\"\"":                                                           "nothing but blanks",
		"  ":                                                             "nothing but blanks",
		"shop":                                                           "neither a URL nor keywords",
		"Host=db.example;Port=5432;Username=u;Password=hunter2;Database=shop": `"Host" is not a connection parameter`,
		"postgres://u:hunter2@db.example:x/shop":                              "port",
		"postgres://u:p@hunter2@db.example/shop":                              "more than one @",
		"postgres://u:p@hunter2@db.example,db2.example/shop":                  "more than one @",
		"postgres://u:hunter2@db.example/shop?hunter2/x=y":                    "no parameter of Postgres has",
	} {
		_, err := session.Parse(text)
		require.ErrorContains(t, err, says, text)
		require.NotContains(t, err.Error(), "hunter2", text)
		_, err = session.ParsePool(text)
		require.ErrorContains(t, err, says, text)
	}
}

// TestWhatLibpqTakesIsUnderstoodOrRefusedByName tries each parameter of libpq, in a URL and in a
// service file. None may reach the server as a setting that the server does not know.
func TestWhatLibpqTakesIsUnderstoodOrRefusedByName(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	separator := "?"
	if strings.Contains(db.URL(), "?") {
		separator = "&"
	}
	for _, c := range []struct{ name, value, refused string }{
		{"keepalives", "1", ""}, {"keepalives", "0", ""}, {"keepalives_idle", "30", ""}, {"keepalives_interval", "5", ""}, {"keepalives_count", "3", ""},
		{"tcp_user_timeout", "10000", ""}, {"connect_timeout", "5", ""}, {"application_name", "x", ""}, {"fallback_application_name", "x", ""},
		{"client_encoding", "auto", ""}, {"client_encoding", "LATIN1", ""}, {"options", "-c statement_timeout=5s", ""}, {"channel_binding", "prefer", ""},
		{"gssencmode", "disable", ""}, {"gssencmode", "prefer", ""}, {"gssencmode", "require", "gssencmode"}, {"gsslib", "gssapi", ""}, {"gssdelegation", "0", ""},
		{"krbsrvname", "postgres", ""}, {"sslcompression", "0", ""}, {"sslsni", "1", ""}, {"sslcertmode", "allow", ""}, {"sslnegotiation", "postgres", ""},
		{"ssl_min_protocol_version", "TLSv1.2", ""}, {"ssl_max_protocol_version", "TLSv1.3", ""}, {"ssl_min_protocol_version", "SSLv3", "ssl_min_protocol_version"},
		{"min_protocol_version", "3.0", ""}, {"max_protocol_version", "3.0", ""}, {"load_balance_hosts", "disable", ""}, {"load_balance_hosts", "random", "load_balance_hosts"},
		{"target_session_attrs", "read-write", ""}, {"target_session_attrs", "primary", ""}, {"target_session_attrs", "any", ""},
		{"requirepeer", "postgres", "requirepeer"}, {"requiressl", "1", "sslmode=require"}, {"ssl", "1", "sslmode=require"}, {"sslcrl", "/x", "sslcrl"}, {"sslcrldir", "/x", "sslcrldir"},
		{"replication", "database", "replication"}, {"sslkeylogfile", "/x", "sslkeylogfile"}, {"scram_client_key", "x", "scram_client_key"},
		{"oauth_issuer", "x", "oauth_issuer"}, {"passfile", "/nowhere", ""}, {"require_auth", "!gss", ""},
		{"nosuch", "1", `"nosuch" is not a connection parameter`}, {"pool_max_conns", "3", ""}, {"search_path", "public", ""}, {"myapp.tenant", "7", ""},
		{"keepalives_idle", "long", "keepalives_idle"}, {"keepalives_nosuch", "1", "keepalives_nosuch"}, {"pgbouncer", "true", "ROWHOOK_LISTEN_URL"}, {"sslmode", "disable", ""},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			t.Parallel()
			service := filepath.Join(t.TempDir(), "services")
			require.NoError(t, os.WriteFile(service, []byte("[x]\n"+c.name+"="+c.value+"\n"), 0o600))
			value := strings.NewReplacer(" ", "%20", "=", "%3D", "/", "%2F").Replace(c.value)
			texts := []string{db.URL() + separator + c.name + "=" + value}
			if c.name != "sslmode" && c.name != "passfile" {
				texts = append(texts, db.URL()+separator+"service=x&servicefile="+url.QueryEscape(service))
			}
			for _, text := range texts {
				config, err := session.Parse(text)
				if c.refused != "" {
					require.ErrorContains(t, err, c.refused)
					continue
				}
				require.NoError(t, err)
				conn, err := session.Connect(t.Context(), config)
				require.NoError(t, err)
				require.NoError(t, conn.Close(t.Context()))
			}
		})
	}
}

func TestALineOfAServiceFileThatCanNotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "services")
	_, err := session.Parse("service=a servicefile=" + path)
	require.ErrorContains(t, err, "no such file")
	for _, line := range []string{"ldap://ldap.example/dc=x", "; password hunter2", "password hunter2"} {
		require.NoError(t, os.WriteFile(path, []byte("# theirs\n[a]\nhost=db\n\n[b]\n"+line+"\n"), 0o600))
		_, err := session.ParsePool("service=a servicefile=" + path)
		if strings.Contains(line, "=") {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, "line 6 of the service file "+path)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestSettingsOfTLSAndAddressesAreHeededByEveryHost(t *testing.T) {
	t.Parallel()
	c, err := session.Parse("host=a.example,b.example hostaddr=10.0.0.1,10.0.0.2 dbname=x user=u sslmode=prefer ssl_min_protocol_version=TLSv1.3")
	require.NoError(t, err)
	require.EqualValues(t, tls.VersionTLS13, c.TLSConfig.MinVersion)
	for _, f := range c.Fallbacks {
		require.True(t, f.TLSConfig == nil || f.TLSConfig.MinVersion == tls.VersionTLS13)
	}
	for host, want := range map[string]string{"a.example": "10.0.0.1", "b.example": "10.0.0.2"} {
		got, err := c.LookupFunc(t.Context(), host)
		require.NoError(t, err)
		require.Equal(t, []string{want}, got)
	}
	_, err = session.Parse("host=a.example,b.example hostaddr=10.0.0.1 dbname=x user=u")
	require.ErrorContains(t, err, "hostaddr")
}

func TestAPasswordThatWasRotatedIsTakenUp(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	config, err := session.Parse(db.URL())
	require.NoError(t, err)
	dir := t.TempDir()
	passfile, service := filepath.Join(dir, "pass"), filepath.Join(dir, "services")
	set := func(password string) {
		require.NoError(t, os.WriteFile(passfile, []byte("*:*:*:*:"+password+"\n"), 0o600))
		require.NoError(t, os.WriteFile(service, []byte(fmt.Sprintf("[shop]\nhost=%s\nport=%d\ndbname=%s\nuser=u\npassword=%s\nsslmode=disable\n",
			config.Host, config.Port, config.Database, password)), 0o600))
	}
	set("first")
	for _, text := range []string{
		fmt.Sprintf("host=%s port=%d user=u dbname=%s sslmode=disable passfile=%s", config.Host, config.Port, config.Database, passfile),
		"service=shop servicefile=" + service,
	} {
		set("first")
		pool, err := session.ParsePool(text)
		require.NoError(t, err)
		require.Equal(t, "first", pool.ConnConfig.Password)
		set("second")
		require.NoError(t, pool.BeforeConnect(t.Context(), pool.ConnConfig))
		require.Equal(t, "second", pool.ConnConfig.Password)
		require.NoError(t, os.Remove(passfile))
		require.NoError(t, os.Remove(service))
		require.NoError(t, pool.BeforeConnect(t.Context(), pool.ConnConfig))
		require.Equal(t, "second", pool.ConnConfig.Password, "a file that is being replaced takes nothing away")
	}
}
