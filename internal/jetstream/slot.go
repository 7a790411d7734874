package jetstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/webhook"
)

// Limits of connections.
const (
	idleFor   = 5 * time.Minute  // without a message, before a connection is closed
	pingEvery = 10 * time.Second // two pings without an answer end a connection
	mostDial  = 5 * time.Second  // for each server; an attempt may end before
)

// slot is the place of a connection: it is made when the first message needs it, and made anew when it
// is lost.
type slot struct {
	all     *Connections
	key     slotKey
	guard   dispatcher.Guard
	idle    *time.Timer
	members map[*destination]bool // who uses it; the mutex of all guards it
	dials   sync.WaitGroup

	mu      sync.Mutex
	conn    *connection
	dialing *dialing // nil: nobody makes a connection
	known   []string // servers of the cluster that the last connection has heard of
	used    time.Time
	users   int // attempts
	worked  time.Time
	ended   bool
}

// dialing is that a connection is being made.
type dialing struct {
	done chan struct{} // closed at the end
	conn *connection
	err  *connectError
}

// connection is one connection, and what is known of it.
type connection struct {
	*publisher

	gone chan struct{} // closed when the connection is
	deaf atomic.Bool   // answers may not arrive, so it was closed

	refusals atomic.Pointer[refusal] // the open one
}

// connectError is why there is no connection.
type connectError struct {
	kind  webhook.Kind
	text  string
	ended bool // the slot was given up, and another one is to be used
}

// errEnded says that the rules about addresses have changed.
func errEnded() *connectError {
	return &connectError{kind: webhook.KindReset, text: "the connection was closed, since the rules about addresses have changed", ended: true}
}

// acquire returns the connection, or nothing if ctx or the time is over before it is there. Whoever has
// it calls release at the end.
func (s *slot) acquire(ctx context.Context, ep *endpoint, over <-chan time.Time) (*connection, *connectError) {
	s.mu.Lock()
	s.users++
	if s.ended {
		s.mu.Unlock()
		return nil, errEnded()
	}
	if c := s.conn; c != nil && !c.lost() {
		s.mu.Unlock()
		return c, nil
	}
	made := s.dialing
	if made == nil {
		made = s.dial(ep)
	}
	s.mu.Unlock()
	select {
	case <-made.done:
		return made.conn, made.err
	case <-ctx.Done():
	case <-over:
	}
	return nil, nil
}

// release ends the use of the connection.
func (s *slot) release(worked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	s.used = time.Now()
	if worked {
		s.worked = s.used
	}
}

// hasWorked reports whether a message was stored a short time ago, so that what fails now may be on
// its way back.
func (s *slot) hasWorked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.worked) < workedFor
}

// reap closes a connection that is not used.
func (s *slot) reap() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
	case s.users > 0 || time.Since(s.used) < idleFor:
		s.idle.Reset(idleFor)
	default:
		s.all.forget(s)
		s.close()
	}
}

// end closes the connection for good.
func (s *slot) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
}

func (s *slot) close() {
	s.ended = true
	s.idle.Stop()
	if s.conn != nil {
		s.conn.nc.Close()
	}
}

// dial begins to make a connection.
func (s *slot) dial(ep *endpoint) *dialing {
	made := &dialing{done: make(chan struct{})}
	s.dialing = made
	before, known := s.conn, s.known
	if before != nil {
		known = before.nc.Servers()
	}
	s.dials.Go(func() {
		conn, err := connect(ep, s.guard, known, ep.destination.config.Version)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dialing, s.known = nil, known; conn != nil && s.ended {
			conn.nc.Close()
			conn, err = nil, errEnded()
		}
		if made.conn, made.err = conn, err; conn != nil {
			s.conn = conn
		}
		close(made.done)
	})
	return made
}

// dialer connects to addresses that the guard allows. It remembers the first error, since the library
// replaces a refused connection by an error that does not say so.
type dialer struct {
	net *net.Dialer

	mu    sync.Mutex
	first error
}

// Dial connects.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := d.net.Dial(network, address)
	if err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.first == nil {
			d.first = err
		}
		return nil, err //nolint:wrapcheck // the library looks at it
	}
	return conn, nil
}

func (d *dialer) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.first
}

// connect makes a connection to one of the servers. known are others of their cluster, which are tried
// behind them.
func connect(ep *endpoint, guard dispatcher.Guard, known []string, version string) (*connection, *connectError) {
	config, err := ep.TLS()
	if err != nil {
		return nil, &connectError{kind: webhook.KindTLS, text: err.Error()}
	}
	c := &connection{gone: make(chan struct{})}
	c.refusals.Store(&refusal{done: make(chan struct{})})
	d := &dialer{net: guard.Dialer()}
	d.net.Timeout = mostDial
	o := nats.GetDefaultOptions()
	o.Servers = slices.Clone(ep.Servers())
	for _, other := range known {
		if !slices.Contains(o.Servers, other) {
			o.Servers = append(o.Servers, other)
		}
	}
	o.Name = strings.TrimSpace("rowhook " + version)
	o.Timeout, o.CustomDialer = mostDial, d
	o.AllowReconnect, o.NoEcho = false, true
	o.PingInterval, o.MaxPingsOut = pingEvery, 2
	o.ClosedCB = func(*nats.Conn) { close(c.gone) }
	o.AsyncErrorCB = func(nc *nats.Conn, _ *nats.Subscription, err error) { c.refused(nc, err) }
	login := ep.Login()
	o.User, o.Password, o.Token = login.User, login.Password, login.Token
	if login.Creds != "" {
		_, err := nkeys.ParseDecoratedUserNKey([]byte(login.Creds))
		if err == nil {
			err = nats.UserCredentialBytes([]byte(login.Creds))(&o)
		}
		if err != nil {
			return nil, &connectError{kind: webhook.KindUnauthorized, text: ep.Scrub(fmt.Sprintf("creds is not a whole credentials file (%s): write the file anew (nsc generate creds)", strings.TrimPrefix(err.Error(), "nkeys: ")))}
		}
	}
	if config != nil {
		o.Secure, o.TLSConfig = true, config
	}
	nc, err := o.Connect()
	if err == nil {
		if c.publisher, err = newPublisher(nc); err != nil {
			nc.Close()
		}
	}
	if err != nil {
		return nil, explain(ep, err, d.failure())
	}
	return c, nil
}

// explain says why no connection could be made. dialed is why none of TCP could.
func explain(ep *endpoint, err, dialed error) *connectError {
	switch {
	case isAny(err, nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported, nats.ErrNoUserCB):
		return &connectError{kind: webhook.KindUnauthorized, text: ep.Scrub(fmt.Sprintf("%s does not accept the login (%s): compare creds, user and password, or token with those of the server",
			host(ep), strings.TrimPrefix(err.Error(), "nats: ")))}
	case errors.Is(err, nats.ErrSecureConnWanted):
		return &connectError{kind: webhook.KindTLS, text: ep.Scrub(host(ep) + " has no TLS: write nats:// in url and remove tls, or give the server a certificate")}
	case errors.Is(err, nats.ErrTimeout):
		return &connectError{kind: webhook.KindTimeout, text: ep.Scrub(host(ep) + " did not answer in time when connecting")}
	case dialed != nil && (errors.Is(err, nats.ErrNoServers) || errors.Is(err, dialed)):
		err = dialed
	}
	kind, text := webhook.Describe(err, host(ep))
	switch remedy := remedyOfTLS(err); {
	case kind == webhook.KindTLS && remedy != "":
		text += ": " + remedy
	case kind == webhook.KindReset && (ep.OwnTLS() || strings.HasPrefix(host(ep), "tls:")):
		// A server refuses a client's certificate behind the client's part of the handshake. What it says
		// is lost if the client has written meanwhile.
		text += ": if the server wants a client certificate, name one in tls.cert_file, and its key in tls.key_file"
	}
	return &connectError{kind: kind, text: ep.Scrub(strings.TrimPrefix(text, "nats: "))}
}

// remedyOfTLS says what to do about a handshake that has failed, or "".
func remedyOfTLS(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		op        *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		return "name the authority of the server's certificate in tls.ca_file"
	case errors.As(err, &name):
		return "write a name in url that the server's certificate has, or give the server one with this name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate of the server, or correct the clock"
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		return "name a client certificate that the server accepts in tls.cert_file, and its key in tls.key_file"
	}
	return ""
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// host is the servers of an endpoint for people.
func host(ep *endpoint) string {
	servers, _, _ := strings.Cut(ep.String(), " ")
	return servers
}

// lost reports whether the connection is closed.
func (c *connection) lost() bool {
	select {
	case <-c.gone:
		return true
	default:
		return c.nc.IsClosed()
	}
}

// refusal is that the server does not let a message be published. Each leads to the next one, of which
// the last is open.
type refusal struct {
	done    chan struct{} // closed when it is known
	subject string
	next    *refusal
}

// refused takes in what the server refuses. One goroutine of the library calls it.
func (c *connection) refused(nc *nats.Conn, err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	if strings.Contains(err.Error(), "Subscription to") {
		c.deaf.Store(true)
		nc.Close()
		return
	}
	_, subject, ok := strings.Cut(err.Error(), `Publish to "`)
	if !ok {
		return
	}
	r := c.refusals.Load()
	r.subject, _, _ = strings.Cut(subject, `"`)
	r.next = &refusal{done: make(chan struct{})}
	c.refusals.Store(r.next)
	close(r.done)
}
