package localpg

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	passwordFile = "rowhook.password" // its presence also proves that localpg made the directory
	settingsFile = "rowhook.conf"
	logFile      = "postgres.log"
)

// layout is the directories of a server.
type layout struct {
	temp     string // removed at the end
	data     string // in temp, unless it is kept
	sockets  string // in temp
	kept     bool   // the data outlives the Server
	account  account
	password string
	// passwordUnset says that the data does not have the password yet.
	passwordUnset bool
}

// chooseLayout chooses the directories, and makes none.
func chooseLayout(config Config, acct account) (layout, error) {
	parent, err := tempParent(config.TempDir, acct)
	if err != nil {
		return layout{}, err
	}
	temp := filepath.Join(parent, "rowhook-pg-"+rand.Text()[:10]) // 50 bits
	l := layout{temp: temp, data: filepath.Join(temp, "data"), sockets: filepath.Join(temp, "s"), account: acct}
	if config.DataDir != "" {
		l.data, l.kept = config.DataDir, true
	}
	return l, nil
}

// make makes the temporary directory and, if the configuration names one, the kept data directory.
// The watchdog over them must run already: this process may be killed after each step.
func (l layout) make() error {
	if err := os.Mkdir(l.temp, 0o700); err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	if err := os.Mkdir(l.sockets, 0o700); err != nil {
		return fmt.Errorf("make the socket directory: %w", err)
	}
	if err := os.WriteFile(l.services(), []byte("["+service+"]\n"), 0o600); err != nil {
		return fmt.Errorf("make the service file: %w", err)
	}
	if err := l.account.own(l.temp, l.sockets); err != nil {
		return err
	}
	if !l.kept {
		return nil
	}
	return l.makeDataDir()
}

// tempParent returns the configured or usual directory for temporary files. If the server's user
// can't enter it, or its path is too long, it returns /tmp or /var/tmp: the path of a Unix socket
// has at most 103 bytes on macOS.
func tempParent(configured string, acct account) (string, error) {
	for _, dir := range []string{cmp.Or(configured, os.TempDir()), "/tmp", "/var/tmp"} {
		abs, err := filepath.Abs(dir)
		if err == nil && len(abs) < 60 && acct.canEnter(abs) == nil {
			return abs, nil
		}
	}
	return "", fmt.Errorf("user %s can enter no directory for temporary files: set TMPDIR to one that it can enter", acct.name)
}

func (l layout) makeDataDir() error {
	_, err := os.Stat(l.data)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(l.data, 0o700); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	if empty, err := isEmpty(l.data); err != nil {
		return err
	} else if empty {
		if err := l.account.own(l.data); err != nil {
			return err
		}
	}
	if err := l.account.canEnter(l.data); err != nil {
		return fmt.Errorf("user %[2]s can't enter the data directory %[1]s, and PostgreSQL can't run as root: "+
			"use a directory whose parents others can enter (such as one in /var/lib), or run as a normal user: %[3]w", l.data, l.account.name, err)
	}
	return nil
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, fmt.Errorf("read the data directory: %w", err)
	}
	defer f.Close()
	switch _, err := f.Readdirnames(1); {
	case errors.Is(err, io.EOF):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read the data directory %s: %w", dir, err)
	}
	return false, nil
}

// check returns whether the data directory is empty and needs initdb, or an error if a server of
// this version can't use it. It reads the password of an existing one.
func (l *layout) check(version int) (isNew bool, err error) {
	if !l.kept {
		return true, nil
	}
	if empty, err := isEmpty(l.data); empty || err != nil {
		return empty, err
	}
	content, err := os.ReadFile(l.path("PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("data directory %s is not empty and contains no PostgreSQL data: use another directory, or empty this one", l.data)
	} else if err != nil {
		return false, fmt.Errorf("read the data directory's version: %w", err)
	}
	if major := strings.TrimSpace(string(content)); major != strconv.Itoa(version/10000) {
		return false, fmt.Errorf("data directory %s belongs to PostgreSQL %s, but the binaries have version %s: "+
			"use binaries of version %[2]s, or another directory", l.data, major, versionText(version))
	}
	if pid := l.livePostmaster(); pid != 0 {
		return false, fmt.Errorf("another PostgreSQL, process %[2]d, uses the data directory %[1]s: stop that one, or use another directory", l.data, pid)
	}
	password, err := os.ReadFile(l.path(passwordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("data directory %s was not made by rowhook (it has no %s), and rowhook would change its settings: "+
			"use another directory, or run that server yourself and set DATABASE_URL", l.data, passwordFile)
	} else if err != nil {
		return false, fmt.Errorf("read the data directory's password: %w", err)
	}
	l.password = strings.TrimSpace(string(password))
	return false, nil
}

// livePostmaster returns the id of the process that serves the data directory, or 0. The process id
// alone proves nothing, because another program may have got the id of a crashed server. The
// process must also accept connections at the address in postmaster.pid.
func (l layout) livePostmaster() int {
	content, err := os.ReadFile(l.path("postmaster.pid"))
	if err != nil {
		return 0
	}
	lines := strings.Split(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || !processAlive(pid) {
		return 0
	}
	if len(lines) < 6 {
		return pid // it is starting, and has not written its address yet
	}
	port, socketDir, address := lines[3], lines[4], lines[5]
	if address == "*" {
		address = "127.0.0.1"
	}
	for network, addr := range map[string]string{"unix": filepath.Join(socketDir, ".s.PGSQL."+port), "tcp": net.JoinHostPort(address, port)} {
		if conn, err := net.DialTimeout(network, addr, time.Second); err == nil { //nolint:noctx // a local connection, at most a second
			_ = conn.Close()
			return pid
		}
	}
	return 0
}

func (l layout) path(name string) string { return filepath.Join(l.data, name) }

func (l layout) log() string { return l.path(logFile) }

// service is a service that says nothing, in the file services. It takes the place of PGSERVICE: a
// connection string can't ask for none.
const service = "rowhook"

func (l layout) services() string { return filepath.Join(l.temp, "pg_service.conf") }

// complete returns all parameters of a connection that a PG* variable may set, except for those in
// Server.URL, with the value that they have without the variable.
func (l layout) complete() string {
	values := url.Values{
		"service": {service}, "servicefile": {l.services()}, "connect_timeout": {"0"}, "sslcertmode": {"allow"}, "sslnegotiation": {"postgres"},
		"target_session_attrs": {"any"}, "min_protocol_version": {"3.0"}, "max_protocol_version": {"3.0"}, "channel_binding": {"prefer"},
	}
	for _, name := range []string{
		"passfile", "application_name", "timezone", "options", "sslkey", "sslcert", "sslrootcert", "sslpassword", "sslsni", "require_auth",
		// These are read by package session.
		"hostaddr", "requirepeer", "sslcrl", "sslcrldir", "gssencmode", "ssl_min_protocol_version", "ssl_max_protocol_version", "load_balance_hosts",
	} {
		values.Set(name, "")
	}
	return strings.ReplaceAll(values.Encode(), "+", "%20") // in a connection string, a plus is no blank
}

// isReady reports whether the postmaster with this process id says that it accepts connections.
func (l layout) isReady(pid int) bool {
	content, err := os.ReadFile(l.path("postmaster.pid"))
	lines := strings.Split(string(content), "\n")
	return err == nil && len(lines) >= 8 && strings.TrimSpace(lines[0]) == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

// initdb makes the data. Data that is kept gets its password, and is synced to disk. Temporary data
// gets its password from waitReady, and nobody needs it after a crash of the machine.
func (s *Server) initdb(ctx context.Context) error {
	l := &s.layout
	args := []string{
		"--pgdata=" + l.data, "--username=postgres",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8",
	}
	if l.kept {
		l.password = rand.Text()
		passwordIn := filepath.Join(l.temp, passwordFile)
		if err := l.write(passwordIn, l.password+"\n"); err != nil {
			return err
		}
		args = append(args, "--pwfile="+passwordIn)
	} else {
		args = append(args, "--no-sync")
	}
	// C.UTF-8 knows the letters beyond ASCII, but not every system has it.
	output, err := s.runInitdb(ctx, append(args, "--locale=C.UTF-8"))
	if err != nil && bytes.Contains(output, []byte("locale")) {
		output, err = s.runInitdb(ctx, append(args, "--locale=C"))
	}
	if err != nil {
		return fmt.Errorf("make the data directory with %s: %w\n%s", s.binaries.initdb(), err, bytes.TrimSpace(output))
	}
	if l.kept {
		if err := l.write(l.path(passwordFile), l.password+"\n"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(l.path("postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write postgresql.conf: %w", err)
	}
	_, err = fmt.Fprintf(f, "\n# Rewritten at every start.\ninclude '%s'\n", settingsFile)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write postgresql.conf: %w", err)
	}
	return nil
}

func (s *Server) runInitdb(ctx context.Context, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.binaries.initdb(), args...)
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = s.account.attributes(ownGroup)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // initdb then removes its files
	cmd.WaitDelay = killDelay
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.watchdog.note("initdb " + strconv.Itoa(cmd.Process.Pid))
	err := cmd.Wait()
	s.watchdog.note("stopped")
	return output.Bytes(), err
}

// write makes a file that only the server's user can read.
func (l layout) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return l.account.own(path)
}

// writeSettings writes the file that postgresql.conf includes.
func (l layout) writeSettings(port int, settings map[string]string) error {
	all := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": `"` + strings.ReplaceAll(l.sockets, `"`, `""`) + `"`, // a list
		"unix_socket_permissions": "0700",
		"log_line_prefix":         "%m [%p] %q%u@%d ",
	}
	if !l.kept {
		// Files in the data directory, which are removed with it. In /dev/shm they would stay if the
		// postmaster is killed with SIGKILL: only the next start on the same data removes them.
		all["dynamic_shared_memory_type"] = "mmap"
	}
	for name, value := range settings {
		if name != "port" {
			all[name] = value
		}
	}
	var b strings.Builder
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.ContainsAny(name+all[name], "\r\n") {
			return fmt.Errorf("setting %q: a line break is not allowed", name)
		}
		value := strings.ReplaceAll(strings.ReplaceAll(all[name], `\`, `\\`), "'", "''")
		fmt.Fprintf(&b, "%s = '%s'\n", name, value)
	}
	return l.write(l.path(settingsFile), b.String())
}

func (l layout) openLog() (*os.File, error) {
	f, err := os.OpenFile(l.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the PostgreSQL log: %w", err)
	}
	if err := l.account.own(l.log()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// logTail returns the last lines of the log from an offset on, for the end of an error.
func (l layout) logTail(from int64) string {
	content, err := os.ReadFile(l.log())
	if err != nil || int64(len(content)) <= from {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(content[from:])), "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return "\nthe end of its log:\n  " + strings.Join(lines, "\n  ")
}

// removeSegment removes the System V shared memory of a postmaster that was killed with SIGKILL. The
// next start on the same data would do that.
func (l layout) removeSegment() {
	content, err := os.ReadFile(l.path("postmaster.pid"))
	lines := strings.Split(string(content), "\n")
	if err != nil || l.kept || len(lines) < 7 {
		return // the postmaster has removed the file, and the segment, too
	}
	if fields := strings.Fields(lines[6]); len(fields) == 2 {
		_ = exec.Command("ipcrm", "-m", fields[1]).Run() //nolint:noctx // it is done at once; where there is no ipcrm, 56 bytes stay
	}
}

// remove deletes the temporary directory.
func (l layout) remove() error {
	if l.temp == "" {
		return nil
	}
	l.removeSegment()
	if err := os.RemoveAll(l.temp); err != nil {
		return fmt.Errorf("remove temporary data: %w", err)
	}
	return nil
}
