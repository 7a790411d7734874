package jetstream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = certify(t, nil, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// certify makes a certificate for a new key, by itself without an authority.
func certify(t *testing.T, by *authority, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	c.Subject.CommonName, c.NotBefore = "rowhook test", time.Now().Add(-time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	if by == nil {
		by = &authority{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, &key.PublicKey, by.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert, key
}

// issue writes a certificate for 127.0.0.1 and its key as files.
func (a *authority) issue(t *testing.T, change ...func(*x509.Certificate)) (certFile, keyFile string) {
	t.Helper()
	c := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, f := range change {
		f(c)
	}
	cert, key := certify(t, a, c)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return write(t, "CERTIFICATE", cert.Raw), write(t, "PRIVATE KEY", der)
}

// file writes its certificate.
func (a *authority) file(t *testing.T) string {
	t.Helper()
	return write(t, "CERTIFICATE", a.cert.Raw)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func write(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// replace puts a file in the place of another at once.
func replace(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// speaksTLS has a server demand TLS, and certificates of clients if it has an authority for them.
func speaksTLS(t *testing.T, a, clients *authority, change ...func(*x509.Certificate)) func(*server.Options) {
	t.Helper()
	cert, key := a.issue(t, change...)
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	return func(o *server.Options) {
		o.TLS, o.TLSTimeout = true, patience.Seconds()
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		if clients != nil {
			o.TLSVerify = true
			o.TLSConfig.ClientAuth, o.TLSConfig.ClientCAs = tls.RequireAndVerifyClientCert, clients.pool()
		}
	}
}

// operator is who runs servers that know users by JWT: its one account, and the server that trusts it.
type operator struct {
	*natsServer
	keys, account nkeys.KeyPair
	claims        *jwt.AccountClaims
}

func keyPair(t *testing.T, make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
	t.Helper()
	pair, err := make()
	require.NoError(t, err)
	public, err := pair.PublicKey()
	require.NoError(t, err)
	return pair, public
}

func newOperator(t *testing.T, change ...func(*server.Options)) *operator {
	t.Helper()
	keys, public := keyPair(t, nkeys.CreateOperator)
	_, systemID := keyPair(t, nkeys.CreateAccount)
	o := &operator{keys: keys}
	claims := jwt.NewOperatorClaims(public)
	claims.SystemAccount = systemID
	token, err := claims.Encode(keys)
	require.NoError(t, err)
	claims, err = jwt.DecodeOperatorClaims(token)
	require.NoError(t, err)
	resolver := &server.MemAccResolver{}
	ofSystem, err := jwt.NewAccountClaims(systemID).Encode(keys)
	require.NoError(t, err)
	require.NoError(t, resolver.Store(systemID, ofSystem))
	var id string
	o.account, id = keyPair(t, nkeys.CreateAccount)
	o.claims = jwt.NewAccountClaims(id)
	o.claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	require.NoError(t, resolver.Store(id, o.encoded(t)))
	o.natsServer = newServer(t, append(change, func(options *server.Options) {
		options.TrustedOperators, options.AccountResolver, options.SystemAccount = []*jwt.OperatorClaims{claims}, resolver, systemID
	})...)
	return o
}

func (o *operator) encoded(t *testing.T) string {
	t.Helper()
	token, err := o.claims.Encode(o.keys)
	require.NoError(t, err)
	return token
}

// user makes a user, and returns its credentials file and its public key.
func (o *operator) user(t *testing.T, change ...func(*jwt.UserClaims)) (creds, id string) {
	t.Helper()
	pair, id := keyPair(t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(id)
	for _, c := range change {
		c(claims)
	}
	token, err := claims.Encode(o.account)
	require.NoError(t, err)
	seed, err := pair.Seed()
	require.NoError(t, err)
	file, err := jwt.FormatUserConfig(token, seed)
	require.NoError(t, err)
	return string(file), id
}

// revoke has the server throw a user out.
func (o *operator) revoke(t *testing.T, id string) {
	t.Helper()
	o.claims.RevokeAt(id, time.Now().Add(time.Minute))
	require.NoError(t, o.AccountResolver().Store(o.claims.Subject, o.encoded(t)))
	claims, err := jwt.DecodeAccountClaims(o.encoded(t))
	require.NoError(t, err)
	account, err := o.LookupAccount(o.claims.Subject)
	require.NoError(t, err)
	o.UpdateAccountClaims(account, claims)
}

// client returns a client of the test.
func (o *operator) client(t *testing.T, options ...nats.Option) *fixture {
	t.Helper()
	f := &fixture{server: o.natsServer}
	creds, _ := o.user(t)
	f.nc, f.js = client(t, o.url(), append(options, nats.UserCredentialBytes([]byte(creds)))...)
	return f
}

func TestCredsThatAreReplacedAreUsedWithoutARestart(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	o := newOperator(t, speaksTLS(t, ours, nil))
	f := o.client(t, nats.RootCAs(ours.file(t)))
	stream(t, f.js, "ORDERS")
	f.Site = &dispatchtest.Site{DB: pgtest.New(t)}
	dir := t.TempDir()
	path := filepath.Join(dir, "rowhook.creds")
	first, firstID := o.user(t)
	replace(t, path, first)
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders", func(s *trigger.Spec) {
		s.NATS.Creds, s.NATS.TLS.CAFile = "${file:"+path+"}", ours.file(t)
	}))
	f.run(t, func(c *dispatcher.Config) { c.SecretsDirs = []string{dir} })
	f.Exec(t, "insert into orders (v) values ('a')")
	f.settled(t)

	o.revoke(t, firstID)
	f.Exec(t, "insert into orders (v) values ('b')")
	f.eventually(t, 1, `select least(count(*), 1)::integer from rowhook.invocation_log
		where error_kind = 'unauthorized' and error like '%does not accept the login%: compare creds%'`)
	second, _ := o.user(t)
	replace(t, path, second)
	f.settled(t)
	require.Len(t, messages(t, f.js, "ORDERS"), 2)
	for _, secret := range []string{"eyJ", "-----BEGIN"} {
		require.Equal(t, "false", f.text(t, "select exists (select from rowhook.invocation_log l where l::text like '%' || $1 || '%')::text", secret))
	}
}

// seedMark is where the seed begins in a credentials file.
const seedMark = "-----BEGIN USER NKEY SEED"

func TestCredsThatAreWrongSayWhatToDo(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	f := o.client(t)
	stream(t, f.js, "ORDERS")
	good, _ := o.user(t)
	expired, _ := o.user(t, func(c *jwt.UserClaims) { c.Expires = time.Now().Add(-time.Minute).Unix() })
	silent, _ := o.user(t, func(c *jwt.UserClaims) { c.Pub.Deny.Add("orders.>") })
	stranger, _ := newOperator(t).user(t)
	other, _ := o.user(t)
	mixed := good[:strings.Index(good, seedMark)] + other[strings.Index(other, seedMark):]
	for _, c := range []struct {
		name, creds string
		says        []string
	}{
		{"the user of another operator", stranger, []string{"does not accept the login", "compare creds"}},
		{"expired", expired, []string{"does not accept the login", "compare creds"}},
		{"the seed of another user", mixed, []string{"does not accept the login", "compare creds"}},
		{"no seed", good[:strings.Index(good, seedMark)], []string{"creds", "seed", "nsc generate creds"}},
		{"a token that is none", "-----BEGIN NATS USER JWT-----\nnonsense\n------END NATS USER JWT------\n" + good[strings.Index(good, seedMark):], []string{"does not accept the login", "compare creds"}},
		{"may not publish", silent, []string{"may not publish under orders.1", "allow it"}},
		{"none", "", []string{"does not accept the login", "compare creds"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ep := open(t, f.spec("orders", func(s *trigger.Spec) {
				s.NATS.Timeout = trigger.Duration(patience)
				if c.creds != "" {
					s.NATS.Creds = "${CREDS}"
				}
			}), "CREDS", c.creds)
			r := ep.Send(t.Context(), dispatchtest.Event(1))
			require.Equal(t, webhook.KindUnauthorized, r.Kind, "%+v", r)
			for _, says := range c.says {
				require.Contains(t, r.Err, says)
			}
			require.NotContains(t, r.Err, "eyJ")
		})
	}
	r := open(t, f.spec("orders", func(s *trigger.Spec) { s.NATS.Creds = "${CREDS}" }), "CREDS", good).Send(t.Context(), dispatchtest.Event(1))
	require.True(t, r.Delivered(), "%+v", r)
}

func TestCertificatesOfBothSidesAreChecked(t *testing.T) {
	t.Parallel()
	ours, clients, foreign := newAuthority(t), newAuthority(t), newAuthority(t)
	caFile, foreignFile := ours.file(t), foreign.file(t)
	certFile, keyFile := clients.issue(t)
	foreignCert, foreignKey := foreign.issue(t)
	mutual := newServer(t, speaksTLS(t, ours, clients))
	_, js := client(t, mutual.url(), nats.RootCAs(caFile), nats.ClientCert(certFile, keyFile))
	stream(t, js, "ORDERS")
	own := trigger.TLS{CAFile: caFile, CertFile: certFile, KeyFile: keyFile}
	ofOther := func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} }
	over := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	for _, c := range []struct {
		name   string
		server *natsServer
		files  trigger.TLS
		says   []string // none: it is stored
	}{
		{"all is well", mutual, own, nil},
		{"the system's authorities", mutual, trigger.TLS{}, []string{"unknown authority", "tls.ca_file"}},
		{"another authority", mutual, trigger.TLS{CAFile: foreignFile, CertFile: certFile, KeyFile: keyFile}, []string{"unknown authority", "tls.ca_file"}},
		{"no certificate", mutual, trigger.TLS{CAFile: caFile}, []string{"tls.cert_file", "tls.key_file"}},
		{"the certificate of another authority", mutual, trigger.TLS{CAFile: caFile, CertFile: foreignCert, KeyFile: foreignKey}, []string{"tls.cert_file"}},
		{"another name", newServer(t, speaksTLS(t, ours, nil, ofOther)), trigger.TLS{CAFile: caFile}, []string{"127.0.0.1", "url"}},
		{"expired", newServer(t, speaksTLS(t, ours, nil, over)), trigger.TLS{CAFile: caFile}, []string{"expired", "server"}},
		{"a server without TLS", newServer(t), own, []string{"has no TLS", "nats://", "remove tls"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ep := open(t, (&fixture{server: c.server}).spec("orders", func(s *trigger.Spec) { s.NATS.TLS, s.NATS.Timeout = c.files, trigger.Duration(patience) }))
			r := ep.Send(t.Context(), dispatchtest.Event(1))
			require.Equal(t, len(c.says) == 0, r.Delivered(), "%+v", r)
			if r.Delivered() {
				return
			}
			if r.Kind != webhook.KindReset || !strings.Contains(c.name, "certificate") { // the system may lose what the server says
				require.Equal(t, webhook.KindTLS, r.Kind, "%+v", r)
			}
			for _, says := range c.says {
				require.Contains(t, r.Err, says)
			}
		})
	}
}

func TestFilesOfTLSThatAreReplacedAreUsedWithoutARestart(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t), newAuthority(t)
	s := newServer(t, speaksTLS(t, before, nil))
	_, js := client(t, s.url(), nats.RootCAs(before.file(t)))
	stream(t, js, "ORDERS")
	file := before.file(t)
	ep := open(t, (&fixture{server: s}).spec("orders", func(s *trigger.Spec) { s.NATS.TLS.CAFile, s.NATS.Timeout = file, trigger.Duration(patience) }))
	r := ep.Send(t.Context(), dispatchtest.Event(1))
	require.True(t, r.Delivered(), "%+v", r)

	s.stop()
	speaksTLS(t, after, nil)(&s.options)
	s.start(t)
	r = ep.Send(t.Context(), dispatchtest.Event(2))
	require.Equal(t, webhook.KindTLS, r.Kind, "%+v", r)
	content, err := os.ReadFile(after.file(t))
	require.NoError(t, err)
	replace(t, file, string(content))
	r = ep.Send(t.Context(), dispatchtest.Event(2))
	require.True(t, r.Delivered(), "%+v", r)
}
