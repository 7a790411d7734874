package rowhooktest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/localpg"
)

// process is what the tests of a process share without a TestMain. It is the only state of the
// package, and ends with the process.
type process struct {
	// private starts the private server at its first call. It keeps the server, which would end with
	// its last reference.
	private func() (*localpg.Server, error)

	mu    sync.Mutex
	done  map[string]bool  // what needs to be done once
	rooms map[string]*room // by the server
}

//nolint:gochecknoglobals // tests of a package share a server, and need no TestMain for it
var shared = &process{private: sync.OnceValues(startPrivate), done: map[string]bool{}, rooms: map[string]*room{}}

// once reports whether this is its first call with the key.
func (p *process) once(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.done[key]
	p.done[key] = true
	return first
}

// startPrivate starts a server that nobody stops: its watchdog does when the process has ended. It
// has no goroutine here. Nothing needs its data after a crash, so nothing waits for the disk.
func startPrivate() (*localpg.Server, error) {
	offline, err := strconv.ParseBool(orFalse(os.Getenv(OfflineVariable)))
	if err != nil {
		return nil, fmt.Errorf("%s is %q: write true or false", OfflineVariable, os.Getenv(OfflineVariable))
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	server, err := localpg.Start(ctx, localpg.Config{
		BinDir: os.Getenv(BinariesVariable), NoDownload: offline, Unattended: true, QuickConnect: true,
		Settings: map[string]string{
			"fsync": "off", "full_page_writes": "off", "max_connections": "500", "max_prepared_transactions": "20",
			"max_wal_size": "256MB", // it may be in memory
		},
	})
	if err != nil {
		return nil, fmt.Errorf("start a private Postgres, since neither Server nor %s names one: %w", ServerVariable, err)
	}
	return server, nil
}

func orFalse(text string) string {
	if text == "" {
		return "false"
	}
	return text
}

// serverOf returns the connection string of the server on which databases are made, and the private
// server if it is that one.
func serverOf(ctx context.Context, o options) (url string, private *localpg.Server, err error) {
	url = o.server
	if url == "" {
		url = os.Getenv(ServerVariable)
	}
	if url == "" {
		if private, err = shared.private(); err != nil {
			return "", nil, err
		}
		return private.OwnURL("postgres"), private, nil
	}
	if shared.once("sweep " + url) {
		if err := clone.Sweep(ctx, url); err != nil {
			return "", nil, err
		}
	}
	return url, nil, nil
}
