// Package localpg runs a private PostgreSQL as a child of the calling process, for development,
// tests and benchmarks.
//
// It looks for installed binaries, makes a data directory, starts the server on a free loopback
// port and waits until it accepts connections. Without a DataDir the data is temporary. A watchdog
// process stops the server and removes the temporary data even if the calling process is killed
// with SIGKILL.
//
// Connections over TCP (127.0.0.1 only) use a random password, which is part of [Server.URL].
// Connections over the Unix socket need no password. The socket is in a directory that only the
// server's operating system user can enter.
package localpg

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Config configures a PostgreSQL. The zero value runs an installed one with temporary data.
type Config struct {
	// BinDir is the directory of initdb and postgres. Optional: by default Start searches the usual
	// places.
	BinDir string

	// DataDir keeps the data across runs. The first Start makes it, and later ones reuse it.
	// Optional: by default the data is temporary, and Stop deletes it.
	DataDir string

	// TempDir is the parent of temporary data. Optional: by default MemoryDir with room for
	// roomInMemory, unless the variable TMPDIR is set; else the system's directory for temporary
	// files.
	TempDir string

	// CacheDir keeps what initdb makes, for later starts with temporary data: some 27 MB for each
	// build of PostgreSQL. Optional: by default rowhook/initdb in the user's cache directory; for
	// root in /var/cache. A server starts also where it can't be written.
	CacheDir string

	// Unattended starts no goroutine that waits for PostgreSQL, for servers that nobody stops: the
	// watchdog ends them with this process. Keep the Server: if it is garbage collected, its pipe to
	// the watchdog is closed, too. Exited returns nil then. Optional.
	Unattended bool

	// Port is the TCP port on 127.0.0.1. Optional: by default a free one.
	Port int

	// QuickConnect has clients derive the key of the password by one step instead of 4096, which
	// takes them 4 ms of each connection. The password is random, so nothing is lost. Some clients
	// refuse it, such as that of JDBC. It does not apply to a DataDir. Optional.
	QuickConnect bool

	// Settings are settings of postgresql.conf, such as {"wal_level": "logical"}. They replace the
	// Settings of earlier starts of the same DataDir. Optional.
	Settings map[string]string

	// NoDownload makes Start fail if no binaries are installed, instead of downloading PostgreSQL.
	// Optional.
	NoDownload bool

	// Logger gets messages about slow or surprising steps, such as a download. Optional.
	Logger *slog.Logger
}

// startTimeout bounds the time until a server accepts connections. Crash recovery after heavy
// writes is the slow case.
const startTimeout = 2 * time.Minute

// roomInMemory is the least memory, in bytes, that must be free for temporary data to be in memory.
const roomInMemory = 2 << 30

// Start makes or reuses a data directory, starts PostgreSQL on it and returns once it accepts
// connections. The caller must call Stop.
func Start(ctx context.Context, config Config) (*Server, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.DataDir != "" {
		abs, err := filepath.Abs(config.DataDir)
		if err != nil {
			return nil, fmt.Errorf("find the data directory: %w", err)
		}
		config.DataDir = abs
	}
	if _, set := os.LookupEnv("TMPDIR"); config.TempDir == "" && config.DataDir == "" && !set {
		config.TempDir = MemoryDir(roomInMemory)
	}
	acct, err := chooseAccount(config.DataDir)
	if err != nil {
		return nil, err
	}
	bins, err := findBinaries(ctx, config, acct)
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, binaries: bins, account: acct, port: config.Port}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.cleanUp())
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.cleanUp())
	}
	return s, nil
}

// prepare starts the watchdog, and makes the directories that it watches over, and the data.
func (s *Server) prepare(ctx context.Context) (err error) {
	if s.layout, err = chooseLayout(s.config, s.account); err != nil {
		return err
	}
	if s.watchdog, err = startWatchdog(s.layout, s.account); err != nil {
		return err
	}
	if err := s.layout.make(); err != nil {
		return err
	}
	isNew, err := s.layout.check(s.binaries.version)
	if err != nil {
		return err
	}
	switch {
	case !isNew:
		return nil
	case s.layout.kept:
		return s.initdb(ctx)
	}
	return s.makeTemporaryData(ctx)
}

// makeTemporaryData copies what initdb has made for an earlier start with the same binaries, or runs
// initdb and keeps the result. The server works without the cache, so its errors are only logged.
func (s *Server) makeTemporaryData(ctx context.Context) error {
	s.layout.password, s.layout.passwordUnset = cryptorand.Text(), true
	kept, err := openCache(s.config.CacheDir, s.binaries)
	usable := err == nil
	if usable {
		if err = kept.restore(ctx, s.layout); err == nil {
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.config.Logger.DebugContext(ctx, "run initdb, since its earlier result can't be used", "error", err)
	}
	if err := s.initdb(ctx); err != nil || !usable {
		return err
	}
	if err := kept.store(s.layout); err != nil {
		s.config.Logger.DebugContext(ctx, "the next start runs initdb again", "error", err)
	}
	return nil
}
