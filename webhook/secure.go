package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// tlsFiles are the paths of an endpoint's PEM files, or "". Endpoints with the same files share
// connections.
type tlsFiles struct {
	ca, cert, key string

	beside bool // the system's authorities are trusted, too: for an endpoint for tokens
}

const (
	filesEvery = time.Second // how often the files are checked for changes
	maxPEM     = 1 << 20     // largest size of one file, in bytes
)

// secureTransport connects with the files of an endpoint. It reads them again when they change.
type secureTransport struct {
	files tlsFiles

	mu        sync.Mutex
	transport *http.Transport // nil: the files could not be read yet
	seen      [3]fs.FileInfo  // of the files as they were read
	looked    time.Time
	problem   error // of the last check
}

// Prepare returns why ep can't be called from this process with any event, or nil. The cause is the
// Problem of ep, a proxy of the environment that can't be used, or a TLS file that can't be used.
// TLS files are checked again at most once a second.
func (c *Client) Prepare(ep *Endpoint) error {
	if ep.problem != nil {
		return ep.problem
	}
	if c.proxies != nil {
		if err := c.proxies.check(ep.request.URL); err != nil {
			return err
		}
	}
	if _, err := c.transport(ep); err != nil {
		return errors.New(ep.scrub.text(oneLine(err.Error())))
	}
	if a := ep.issuer; a != nil {
		if c.proxies != nil {
			if err := c.proxies.check(a.url); err != nil {
				return err
			}
		}
		if _, err := c.transportFor(ep, a.grant.tls); err != nil {
			return errors.New(ep.scrub.text(oneLine(err.Error())))
		}
	}
	return nil
}

// transport returns the transport for an endpoint. The error says which of its files can't be used,
// and why.
func (c *Client) transport(ep *Endpoint) (*http.Transport, error) { return c.transportFor(ep, ep.tls) }

// transportFor returns the transport for files of an endpoint.
func (c *Client) transportFor(ep *Endpoint, files tlsFiles) (*http.Transport, error) {
	if files == (tlsFiles{}) {
		return c.plain.Load(), nil
	}
	c.mu.Lock()
	s, guard := c.secure[files], c.guard
	if s == nil {
		s = &secureTransport{files: files}
		c.secure[files] = s
	}
	c.mu.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.looked) >= filesEvery {
		s.looked = now
		before := s.problem
		s.problem = s.look(func(config *tls.Config) *http.Transport { return c.newTransport(guard, config) }, c.config.TLS)
		if s.problem != nil && s.transport != nil && (before == nil || before.Error() != s.problem.Error()) {
			c.config.Problem(errors.New(ep.scrub.text(oneLine(s.problem.Error()))))
		}
	}
	if s.transport == nil {
		return nil, s.problem
	}
	return s.transport, nil
}

// look reads the files if they changed. During a rotation a certificate may arrive before its key:
// that is a problem, and the files that were read before stay in use.
func (s *secureTransport) look(make func(*tls.Config) *http.Transport, base *tls.Config) error {
	var is [3]fs.FileInfo
	same := s.transport != nil
	for i, f := range s.files.list() {
		if f.path == "" {
			continue
		}
		info, err := os.Stat(f.path)
		if err != nil {
			return fmt.Errorf("%s %s: %w", f.key, f.path, withoutPath(err))
		}
		is[i] = info
		same = same && os.SameFile(info, s.seen[i]) && info.Size() == s.seen[i].Size() && info.ModTime().Equal(s.seen[i].ModTime())
	}
	if same {
		return nil
	}
	config, err := s.files.read(base)
	if err != nil {
		return err
	}
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	s.transport, s.seen = make(config), is
	return nil
}

func (s *secureTransport) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
}

// keyedFile is the path of a file with its key in rowhook.yaml.
type keyedFile struct{ key, path string }

func (f tlsFiles) list() [3]keyedFile {
	return [3]keyedFile{{"tls.ca_file", f.ca}, {"tls.cert_file", f.cert}, {"tls.key_file", f.key}}
}

// read returns a TLS configuration with the files.
func (f tlsFiles) read(base *tls.Config) (*tls.Config, error) {
	config := base.Clone()
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	var texts [3][]byte
	for i, file := range f.list() {
		if file.path == "" {
			continue
		}
		text, err := readPEM(file.path)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", file.key, file.path, err)
		}
		texts[i] = text
	}
	if f.ca != "" {
		config.RootCAs = x509.NewCertPool()
		if system, err := x509.SystemCertPool(); f.beside && err == nil {
			config.RootCAs = system
		}
		if !config.RootCAs.AppendCertsFromPEM(texts[0]) {
			return nil, fmt.Errorf("tls.ca_file %s: has no certificate in PEM form", f.ca)
		}
	}
	if f.cert != "" {
		pair, err := tls.X509KeyPair(texts[1], texts[2])
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file %s and tls.key_file %s: %s", f.cert, f.key, withoutPrefix(err.Error()))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// readPEM reads a file. A pipe or a device is not read, as it may block for ever.
func readPEM(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer func() { _ = file.Close() }() // only read from
	if info, err := file.Stat(); err != nil {
		return nil, withoutPath(err)
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxPEM+1))
	switch {
	case err != nil:
		return nil, withoutPath(err)
	case len(text) > maxPEM:
		return nil, fmt.Errorf("is larger than %d bytes, so it is not a PEM file", maxPEM)
	}
	return text, nil
}

// withoutPath returns the cause of an error of the operating system, for a message that names the
// path already.
func withoutPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
