package access

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/secret"
)

// TokenFile has a token without a name, which a file holds. It reads the file again when it changes.
// A file that is gone, or that holds no token, leaves the token that was read last in force.
type TokenFile struct {
	path  string
	least int
	log   *slog.Logger

	mu     sync.Mutex
	token  string
	digest [sha256.Size]byte
	info   os.FileInfo // of the file that was looked at last; nil: it was gone
	readAt time.Time
	wrong  string // what was wrong with it; "": nothing
}

// OpenTokenFile reads the token of a file, which has at least so many characters.
func OpenTokenFile(path string, least int, log *slog.Logger) (*TokenFile, error) {
	f := &TokenFile{path: path, least: least, log: log}
	if wrong := f.read(); wrong != "" {
		return nil, fmt.Errorf("%s", wrong)
	}
	return f, nil
}

// Digest returns the digest of the token that is in force.
func (f *TokenFile) Digest() [sha256.Size]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	return f.digest
}

// Token returns the token that is in force.
func (f *TokenFile) Token() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	return f.token
}

// refresh reads the file again if it has changed.
func (f *TokenFile) refresh() {
	info, err := os.Stat(f.path)
	if err == nil && f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime()) &&
		f.readAt.Sub(info.ModTime()) > settled {
		return
	}
	wrong := f.read()
	switch {
	case wrong == f.wrong:
	case wrong != "":
		f.log.Error("can't read the token of a file: the token that was read last stays in force", "error", wrong)
	default:
		f.log.Info("the file of a token is readable again", "file", f.path)
	}
	f.wrong = wrong
}

// read reads the file, and returns what is wrong with it.
func (f *TokenFile) read() (wrong string) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.info = nil // so that it is read when it is back
	} else {
		f.info, f.readAt = info, time.Now()
	}
	token, err := secret.Read(f.path)
	switch {
	case err != nil:
		return err.Error()
	case len(token) < f.least:
		return fmt.Sprintf("the token in %s is too short: use at least %d characters, for example from openssl rand -hex 32", f.path, f.least)
	}
	f.token, f.digest = token, Digest(token)
	return ""
}
