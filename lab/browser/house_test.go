package browser_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/cli"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// patience is how long a test waits for what should come at once. The machine may be busy.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if os.Getenv(chromiumVariable) != "" {
		if browser, err := startChromium(); err == nil {
			_ = chromedp.Cancel(browser) // it removes what the browser has kept
		}
	}
	os.Exit(code)
}

// The tokens of a house. adminToken is that of ROWHOOK_HTTP_TOKEN.
const adminToken = "0123456789abcdef0123456789abcdef-admin"

// house is an installation: a database with tables, triggers, a receiver, and the program that
// serves the dashboard.
type house struct {
	*pgtest.DB
	Receiver *receiver
	directory,
	file string // rowhook.yaml
	environment []string
	running     *program
	front       string // the address of a proxy before it; "": none
	pool        *pgxpool.Pool
}

// receiver answers webhooks with what a test says.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer map[string]http.HandlerFunc // by the trigger's name, which is the path
}

// Answers sets the answer for the events of a trigger; nil: 200.
func (r *receiver) Answers(trigger string, answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer[trigger] = answer
}

// Fails answers with this status and text.
func (r *receiver) Fails(trigger string, status int, text string) {
	r.Answers(trigger, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	})
}

// Hangs answers nothing until the sender or the test ends.
func (r *receiver) Hangs(t testing.TB, trigger string) {
	ended := t.Context().Done()
	r.Answers(trigger, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-q.Context().Done():
		case <-ended:
		}
	})
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{answer: map[string]http.HandlerFunc{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		r.mu.Lock()
		answer := r.answer[strings.Trim(q.URL.Path, "/")]
		r.mu.Unlock()
		if answer != nil {
			answer(w, q)
		}
	}))
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

// trigger is the configuration of a trigger of the table public.NAME; more are lines of YAML.
func (h *house) trigger(name string, more ...string) string {
	text := fmt.Sprintf("  - name: %s\n    table: public.%s\n    on: {insert: true, update: true, delete: true, manual: true}\n", name, name)
	url := fmt.Sprintf("    webhook: {url: %q}\n", h.Receiver.URL+"/"+name)
	for _, line := range more {
		if strings.HasPrefix(line, "webhook:") {
			url = ""
		}
		text += "    " + line + "\n"
	}
	return text + url
}

// newHouse makes an installation with a table and a trigger for each name, and runs the program.
func newHouse(t *testing.T, tables ...string) *house {
	t.Helper()
	h := buildHouse(t, tables...)
	configuration := "triggers:\n"
	for _, name := range tables {
		configuration += h.trigger(name, "retry: {limit: 2, interval: 1s, backoff: fixed}")
	}
	h.Apply(t, configuration)
	h.Run(t)
	return h
}

// buildHouse makes the database, the tables and the receiver.
func buildHouse(t *testing.T, tables ...string) *house {
	t.Helper()
	return buildHouseIn(t, pgtest.New(t), tables...)
}

// buildHouseIn makes the tables and the receiver.
func buildHouseIn(t *testing.T, db *pgtest.DB, tables ...string) *house {
	t.Helper()
	h := &house{DB: db, Receiver: newReceiver(t), directory: t.TempDir()}
	h.pool = h.Pool(t)
	h.file = filepath.Join(h.directory, "rowhook.yaml")
	h.environment = []string{"DATABASE_URL=" + h.URL(), "ROWHOOK_HTTP_TOKEN=" + adminToken, "PATH=" + os.Getenv("PATH"), "HOME=" + h.directory}
	for _, name := range tables {
		h.Exec(t, "create table "+name+" (id bigint generated always as identity primary key, customer text, amount numeric(38,10))")
	}
	return h
}

// Apply writes rowhook.yaml and applies it.
func (h *house) Apply(t *testing.T, configuration string) {
	t.Helper()
	require.NoError(t, os.WriteFile(h.file, []byte(configuration), 0o600))
	h.Command(t, "apply", "-f", h.file)
}

// Command runs a command of the program to its end, and returns its output.
func (h *house) Command(t *testing.T, args ...string) string {
	t.Helper()
	var out, log bytes.Buffer
	code := cli.Run(t.Context(), args, h.environment, strings.NewReader(""), &out, &log)
	require.Zero(t, code, "rowhook %s\n%s%s", strings.Join(args, " "), out.String(), log.String())
	return out.String()
}

// Run starts the program on a port of its own; more are further flags.
func (h *house) Run(t *testing.T, more ...string) *program {
	t.Helper()
	h.running = runProgram(t, h.environment, append([]string{"run", "--http", "127.0.0.1:0"}, more...)...)
	return h.running
}

// Page returns the address of the dashboard.
func (h *house) Page() string {
	if h.front != "" {
		return h.front
	}
	return h.running.url
}

// program is the program in this process.
type program struct {
	url    string
	cancel context.CancelFunc
	done   chan struct{}
	log    *logged
}

// logged collects a log until it matches.
type logged struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waitFor returns the groups of the expression once the log matches.
func (l *logged) waitFor(t testing.TB, expression string) []string {
	t.Helper()
	re, late := regexp.MustCompile(expression), time.After(patience)
	for {
		l.mu.Lock()
		text, changed := l.text.String(), l.changed
		l.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-changed:
		case <-late:
			require.FailNow(t, "the log never matched "+expression, text)
		}
	}
}

func runProgram(t testing.TB, environment []string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &program{cancel: cancel, done: make(chan struct{}), log: &logged{changed: make(chan struct{})}}
	go func() {
		defer close(p.done)
		cli.Run(ctx, args, environment, strings.NewReader(""), io.Discard, p.log)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("the program's log:\n%s", p.log)
		}
	})
	p.url = "http://" + p.log.waitFor(t, `serving HTTP.* address=(\S+)`)[1]
	p.log.waitFor(t, `\bready\b`)
	return p
}

// Stop ends it as SIGTERM does, and waits.
func (p *program) Stop() {
	p.cancel()
	<-p.done
}
