package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns a certificate for 127.0.0.1 and its key, in PEM form.
func (a *authority) issue(t *testing.T, name string, change ...func(*x509.Certificate)) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// secureReceiver starts an HTTPS server with a certificate of the authority. If clients is set, it
// requires a certificate of that authority. It answers with the name in the client's certificate.
func secureReceiver(t *testing.T, a, clients *authority, change ...func(*x509.Certificate)) string {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, "receiver", change...))
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		}
	}))
	quiet(s)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		s.TLS.ClientCAs.AddCert(clients.cert)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// put writes a file so that the change is noticed whatever the clock of the file system.
func put(t *testing.T, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", data, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func TestAPrivateAuthorityIsTrustedWhereItIsConfiguredAndNowhereElse(t *testing.T) {
	t.Parallel()
	ours, others := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	put(t, filepath.Join(dir, "ca.pem"), ours.pem)
	put(t, filepath.Join(dir, "other.pem"), others.pem)
	url := secureReceiver(t, ours, nil)
	c := newClient(t, ClientConfig{})
	send := func(url string, files trigger.TLS) Result {
		return c.Send(context.Background(), endpoint(t, trigger.Webhook{URL: url, TLS: files}, "DIR", dir), orderPlaced(), nil)
	}
	r := send(url, trigger.TLS{CAFile: "${DIR}/ca.pem"})
	require.True(t, r.Delivered(), r.Err)
	for name, r := range map[string]Result{
		"the system's authorities": send(url, trigger.TLS{}),
		"another authority":        send(url, trigger.TLS{CAFile: "${DIR}/other.pem"}),
	} {
		require.Equal(t, KindTLS, r.Kind, name)
		require.Equal(t, "certificate signed by unknown authority", r.Err, name)
	}
	// The authority is right, but the certificate is for another host or another time.
	r = send(secureReceiver(t, ours, nil, func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"other.example"} }), trigger.TLS{CAFile: "${DIR}/ca.pem"})
	require.Equal(t, KindTLS, r.Kind)
	require.Contains(t, r.Err, "127.0.0.1")
	r = send(secureReceiver(t, ours, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), trigger.TLS{CAFile: "${DIR}/ca.pem"})
	require.Equal(t, KindTLS, r.Kind)
	require.Contains(t, r.Err, "expired")
}

func TestAClientCertificateIsShownAndReadAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	servers, clients := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	cert, key := clients.issue(t, "first")
	put(t, at("ca.pem"), servers.pem)
	put(t, at("cert.pem"), cert)
	put(t, at("key.pem"), key)
	url := secureReceiver(t, servers, clients)
	var mu sync.Mutex
	var problems []string
	c := newClient(t, ClientConfig{Problem: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		problems = append(problems, err.Error())
	}})
	ep := endpoint(t, trigger.Webhook{URL: url, TLS: trigger.TLS{CAFile: at("ca.pem"), CertFile: at("cert.pem"), KeyFile: at("key.pem")}})
	send := func() string {
		r := c.Send(context.Background(), ep, orderPlaced(), nil)
		require.True(t, r.Delivered(), r.Err)
		return string(r.Body)
	}
	require.Equal(t, "first", send())
	r := c.Send(context.Background(), endpoint(t, trigger.Webhook{URL: url, TLS: trigger.TLS{CAFile: at("ca.pem")}}), orderPlaced(), nil)
	require.Equal(t, KindTLS, r.Kind, "without one it is turned away")

	// A rotation writes the certificate first, then its key.
	cert, key = clients.issue(t, "second")
	put(t, at("cert.pem"), cert)
	require.Eventually(t, func() bool {
		require.Equal(t, "first", send(), "half of a rotation is not used")
		mu.Lock()
		defer mu.Unlock()
		return len(problems) > 0
	}, time.Minute, 50*time.Millisecond)
	mu.Lock()
	require.Equal(t, []string{"tls.cert_file " + at("cert.pem") + " and tls.key_file " + at("key.pem") + ": private key does not match public key"}, problems, "said once")
	mu.Unlock()
	put(t, at("key.pem"), key)
	require.Eventually(t, func() bool { return send() == "second" }, time.Minute, 50*time.Millisecond)

	// Both in one file.
	cert, key = clients.issue(t, "third")
	put(t, at("both.pem"), append(cert, key...))
	ep = endpoint(t, trigger.Webhook{URL: url, TLS: trigger.TLS{CAFile: at("ca.pem"), CertFile: at("both.pem"), KeyFile: at("both.pem")}})
	require.Equal(t, "third", send())
}

func TestTLSFilesThatCantBeUsedAreNamedWithTheirKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	a := newAuthority(t)
	cert, key := a.issue(t, "x")
	put(t, at("text.pem"), []byte("no PEM"))
	put(t, at("cert.pem"), cert)
	put(t, at("key.pem"), key)
	put(t, at("large.pem"), make([]byte, maxPEM+1))
	for want, files := range map[string]trigger.TLS{
		"tls.ca_file " + at("missing.pem") + ": no such file or directory":                           {CAFile: at("missing.pem")},
		"tls.ca_file ${DIR}/missing.pem: no such file or directory":                                  {CAFile: "${DIR}/missing.pem"},
		"tls.ca_file " + dir + ": is no regular file":                                                {CAFile: dir},
		"tls.ca_file " + at("text.pem") + ": has no certificate in PEM form":                         {CAFile: at("text.pem")},
		"tls.ca_file " + at("large.pem") + ": is larger than 1048576 bytes, so it is not a PEM file": {CAFile: at("large.pem")},
		"tls.key_file " + at("missing.pem") + ": no such file or directory":                          {CertFile: at("cert.pem"), KeyFile: at("missing.pem")},
		"tls.cert_file " + at("key.pem") + " and tls.key_file " + at("key.pem") + ": failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched": {CertFile: at("key.pem"), KeyFile: at("key.pem")},
	} {
		ep := endpoint(t, trigger.Webhook{URL: "https://127.0.0.1:9", TLS: files}, "DIR", dir)
		r := newClient(t, ClientConfig{}).Send(context.Background(), ep, orderPlaced(), nil)
		require.Equal(t, KindTLS, r.Kind)
		require.Equal(t, want, r.Err)
	}
	for want, w := range map[string]trigger.Webhook{
		"tls.ca_file: environment variable CA is not set":                              {URL: "https://h", TLS: trigger.TLS{CAFile: "${CA}"}},
		`tls.ca_file "${NOTHING}" is empty`:                                            {URL: "https://h", TLS: trigger.TLS{CAFile: "${NOTHING}"}},
		"tls.cert_file and tls.key_file must be set together":                          {URL: "https://h", TLS: trigger.TLS{CertFile: "c"}},
		`tls needs an https url, and "http://h/x" is http: remove tls, or write https`: {URL: "http://h/x", TLS: trigger.TLS{CAFile: "c"}},
		`tls needs an https url, and "${PLAIN}/x" is http: remove tls, or write https`: {URL: "${PLAIN}/x", TLS: trigger.TLS{CAFile: "c"}},
	} {
		_, err := NewEndpoint(w, env("NOTHING", "", "PLAIN", "http://h"))
		require.EqualError(t, err, want)
	}
	// A file that is written later is found.
	url := secureReceiver(t, a, nil)
	c, ep := newClient(t, ClientConfig{}), endpoint(t, trigger.Webhook{URL: url, TLS: trigger.TLS{CAFile: at("late.pem")}})
	require.Equal(t, KindTLS, new(c.Send(context.Background(), ep, orderPlaced(), nil)).Kind)
	put(t, at("late.pem"), a.pem)
	require.Eventually(t, func() bool { return new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered() }, time.Minute, 50*time.Millisecond)
}
