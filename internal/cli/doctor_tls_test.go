package cli_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/doctor"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// authority signs certificates. Two have the same name, as after a renewal.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Own authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{certificate, key}
}

// file writes the certificate of the authority.
func (a *authority) file(t testing.TB) string {
	t.Helper()
	return write(t, "root.crt", block("CERTIFICATE", a.certificate.Raw))
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// sign makes a certificate for a host, valid until a time, and its key.
func (a *authority) sign(t testing.TB, host string, until time.Time) (certificate, key string) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, own.Public(), a.key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(own)
	require.NoError(t, err)
	return block("CERTIFICATE", der), block("PRIVATE KEY", private)
}

// secured is a server that has TLS, and refuses the role tls_only without it.
type secured struct{ *pgtest.Server }

func newSecured(t testing.TB, a *authority, host string, until time.Time) *secured {
	t.Helper()
	s := &secured{pgtest.NewServer(t)}
	db := s.NewEmpty(t)
	certificate, key := a.sign(t, host, until)
	s.put(t, db, "cat > server.crt", certificate)
	s.put(t, db, "umask 077; cat > server.key", key)
	s.put(t, db, "cat - pg_hba.conf > hba && mv hba pg_hba.conf", "hostssl all tls_only 127.0.0.1/32 trust\nhostnossl all tls_only 127.0.0.1/32 reject")
	db.Exec(t, "create role tls_only login superuser")
	db.Exec(t, "alter system set ssl = on")
	s.Restart(t, localpg.Fast)
	return s
}

// put hands a text to a command of the server, in its directory.
func (s *secured) put(t testing.TB, db *pgtest.DB, command, text string) {
	t.Helper()
	db.Exec(t, fmt.Sprintf("copy (select unnest(string_to_array('%s', E'\\n'))) to program '%s'", text, command))
}

// url returns the connection string by a host, with these parameters in the place of sslmode=disable.
func (s *secured) url(t testing.TB, host, parameters string) string {
	t.Helper()
	u, err := url.Parse(s.URL("postgres"))
	require.NoError(t, err)
	u.Host = host + ":" + u.Port()
	u.User = url.UserPassword("tls_only", "a-word") // which is not asked for
	u.RawQuery = parameters
	return u.String()
}

func TestDoctorJudgesTLS(t *testing.T) {
	t.Parallel()
	signer, other := newAuthority(t), newAuthority(t)
	s := newSecured(t, signer, "localhost", time.Now().Add(time.Hour))
	right, wrong := "&sslrootcert="+url.QueryEscape(signer.file(t)), "&sslrootcert="+url.QueryEscape(other.file(t))
	const fits, differs = "localhost", "127.0.0.1"
	const unknown = "the server's certificate is not signed by an authority that is trusted here"
	const setRoot = "set sslrootcert in DATABASE_URL"
	for _, c := range []struct {
		host, parameters string
		state            doctor.State
		says, remedy     string
	}{
		{differs, "sslmode=disable", doctor.Fail, "no encryption", "set sslmode=require in DATABASE_URL"},
		{differs, "sslmode=require", doctor.OK, "encrypted (TLS 1.3), and the server's certificate is not verified", ""},
		{differs, "sslmode=prefer", doctor.OK, "encrypted (TLS 1.3), and the server's certificate is not verified", ""},
		{differs, "sslmode=require" + right, doctor.OK, "is of a trusted authority; the name in it is not compared", ""}, // as libpq does
		{differs, "sslmode=require" + wrong, doctor.Fail, unknown, setRoot},
		{differs, "sslmode=verify-ca" + right, doctor.OK, "is of a trusted authority; the name in it is not compared", ""},
		{differs, "sslmode=verify-ca" + wrong, doctor.Fail, unknown, setRoot},
		{differs, "sslmode=verify-ca", doctor.Fail, unknown, setRoot},
		{fits, "sslmode=verify-full" + right, doctor.OK, "the server's certificate and its name are verified", ""},
		{fits, "sslmode=verify-full" + wrong, doctor.Fail, unknown, setRoot},
		{fits, "sslmode=verify-full", doctor.Fail, unknown, setRoot},
		{differs, "sslmode=verify-full" + right, doctor.Fail, `the server's certificate is for localhost, and not for the host "127.0.0.1"`, "write a host of the certificate in DATABASE_URL, or set sslmode=verify-ca"},
	} {
		t.Run(c.host+" "+c.parameters[:min(len(c.parameters), 30)], func(t *testing.T) {
			r := examine(t, database(s.url(t, c.host, c.parameters)))
			check := map[bool]string{true: "tls", false: "connection"}[c.state == doctor.OK]
			require.Equal(t, c.state == doctor.OK, r.OK)
			r.says(check, c.state, c.says, c.remedy)
		})
	}
}

func TestDoctorNamesACertificateThatHasExpired(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	s := newSecured(t, signer, "localhost", time.Now().Add(-time.Minute))
	r := examine(t, database(s.url(t, "localhost", "sslmode=verify-full&sslrootcert="+url.QueryEscape(signer.file(t)))))
	require.False(t, r.OK)
	r.says("connection", doctor.Fail, "has expired", "renew the server's certificate")
}

func TestDoctorSaysThatTheServerHasNoTLS(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	u, err := url.Parse(db.URL())
	require.NoError(t, err)
	q := u.Query()
	q.Set("sslmode", "require")
	u.RawQuery = q.Encode()
	r := examine(t, database(u.String()))
	require.False(t, r.OK)
	r.says("connection", doctor.Fail, "the server does not support TLS", "turn ssl on in the server")
}
