package access

import (
	"crypto/subtle"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Keyring has the tokens of a file, which it reads again when the file changes. A file that is
// damaged or gone leaves the tokens that were read last in force.
type Keyring struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	tokens []Token
	info   os.FileInfo // of the file that was looked at last; nil: it was gone
	readAt time.Time
	wrong  string // what was wrong with it; "": nothing
}

// OpenKeyring reads a file of tokens, which must be there and be whole.
func OpenKeyring(path string, log *slog.Logger) (*Keyring, error) {
	k := &Keyring{path: path, log: log}
	info, err := os.Stat(path)
	if err == nil {
		k.info, k.readAt = info, time.Now()
	}
	if k.tokens, err = Read(path); err != nil {
		return nil, err
	}
	if loose := Loose(path); loose != "" {
		log.Warn(loose)
	}
	return k, nil
}

// Find returns the token with a digest. ok is false if there is none. It may have ended.
func (k *Keyring) Find(digest [32]byte) (found Token, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	for i := range k.tokens {
		if subtle.ConstantTimeCompare(digest[:], k.tokens[i].Digest[:]) == 1 {
			found, ok = k.tokens[i], true
		}
	}
	return found, ok
}

// settled is how old a change of a file must be to be told from a later one by its time alone. File
// systems keep times in steps of up to two seconds.
const settled = 2 * time.Second

// refresh reads the file again if it has changed.
func (k *Keyring) refresh() {
	info, err := os.Stat(k.path)
	if err != nil {
		k.info = nil // so that it is read when it is back
		k.complain(err.Error())
		return
	}
	same := k.info != nil && os.SameFile(k.info, info) && k.info.Size() == info.Size() && k.info.ModTime().Equal(info.ModTime())
	if same && k.readAt.Sub(info.ModTime()) > settled {
		return
	}
	k.info, k.readAt = info, time.Now()
	tokens, err := Read(k.path)
	if err != nil {
		k.complain(err.Error())
		return
	}
	if k.wrong != "" {
		k.log.Info("the file of tokens is whole again", "file", k.path, "tokens", len(tokens))
	}
	k.tokens, k.wrong = tokens, ""
}

// complain logs once what is wrong.
func (k *Keyring) complain(wrong string) {
	if k.wrong == wrong {
		return
	}
	k.wrong = wrong
	k.log.Error("can't read the file of tokens: the tokens that were read last stay in force; to end all, leave an empty file", "file", k.path, "error", wrong)
}
