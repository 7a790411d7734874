package browser_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/cli"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// workbench is rowhook dev with a configuration, two tables and its own receiver.
type workbench struct {
	*house
	link  string // the dashboard, with the token
	token string
}

const benchTables = `
create table orders (id bigint generated always as identity primary key, customer text, amount numeric(38,10));
create table users (id bigint generated always as identity primary key, name text);`

const benchConfiguration = `triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true, update: true}
    webhook: {url: "http://127.0.0.1/orders", secret: "${ORDERS_SECRET}"}
    retry: {limit: 20, interval: 1s, backoff: fixed}
  - name: user_added
    table: public.users
    on: {insert: true}
    webhook: {url: "http://127.0.0.1/users"}
`

// newWorkbench runs rowhook dev with the configuration.
func newWorkbench(t *testing.T) *workbench {
	t.Helper()
	file, tables := filepath.Join(t.TempDir(), "rowhook.yaml"), filepath.Join(t.TempDir(), "schema.sql")
	require.NoError(t, os.WriteFile(file, []byte(benchConfiguration), 0o600))
	require.NoError(t, os.WriteFile(tables, []byte(benchTables), 0o600))
	b := runDev(t, "-f", file, "--init", tables, "--sink")
	b.file = file
	return b
}

// runDev runs rowhook dev with these flags.
func runDev(t *testing.T, flags ...string) *workbench {
	t.Helper()
	if os.Getenv("ROWHOOK_TEST_CHROMIUM") == "" {
		t.Skip("ROWHOOK_TEST_CHROMIUM is not set: scripts/test --browser sets it")
	}
	b := &workbench{house: &house{directory: t.TempDir()}}
	environment := []string{"ROWHOOK_POSTGRES_BIN=" + os.Getenv(pgtest.EnvBinDir), "PATH=" + os.Getenv("PATH"), "HOME=" + b.directory}
	args := append([]string{"dev", "--http", "127.0.0.1:0"}, flags...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &program{cancel: cancel, done: make(chan struct{}), log: &logged{changed: make(chan struct{})}}
	go func() {
		defer close(p.done)
		cli.Run(ctx, args, environment, strings.NewReader(""), p.log, p.log)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("rowhook dev printed:\n%s", p.log)
		}
	})
	b.link = p.log.waitFor(t, `Dashboard on (\S+)`)[1]
	p.log.waitFor(t, "Ctrl-C stops everything")
	p.url, b.token, _ = strings.Cut(b.link, "/#token=")
	b.running = p
	return b
}

// Opens opens the link that rowhook dev has printed, and goes to its page.
func (b *workbench) Opens(t *testing.T) *tab {
	t.Helper()
	tb := newPerson(t).Tab(t, b.house, strings.TrimPrefix(b.link, b.Page()+"/"))
	tb.wait("the token stayed in the address", `location.href.endsWith("#/")`)
	tb.Clicks("nav", "Dev")
	tb.Sees("h1", "Try it out")
	return tb
}

// RunsSQL writes SQL into the box, and runs it by the keyboard.
func (tb *tab) RunsSQL(sql string) {
	tb.t.Helper()
	tb.Types("main", "SQL", sql)
	tb.run(chromedp.KeyEvent(kb.Enter, chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	tb.wait("it never ended", `!document.querySelector("main").innerText.includes("Running,")`)
}

// writes writes a text into the editor of the configuration.
func (tb *tab) writes(text string) {
	tb.t.Helper()
	tb.Types("main", "Configuration", text)
}

func TestDevShowsWhatARowBecomes(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	tb := b.Opens(t)
	require.NotContains(t, eval[string](tb, "document.documentElement.outerHTML"), b.token)
	require.NotContains(t, eval[string](tb, "location.href"), b.token)
	tb.Sees("main", "Nothing has arrived yet Insert a row into public.orders: order_changed sends it here.")

	tb.RunsSQL("insert into orders (customer, amount) values ('Ada\u202e', 12345678901234567890.0000000001)")
	tb.Sees("main [role=status]", "INSERT 0 1")
	tb.Sees(".deliveries tbody tr", "order_changed INSERT public.orders 1 valid 200")
	tb.Clicks(".deliveries tbody", "") // the first row's button
	tb.Sees(".deliveries .more", "12345678901234567890.0000000001")
	tb.Sees(".deliveries .more", `Ada\u202e`)
	tb.Sees(".deliveries .more", "POST /order_changed")
	tb.Sees(".deliveries .more", "Webhook-Signature")
	tb.Clicks(".deliveries .more", "The event")
	tb.Waits("^#/event/")
	tb.Sees("main", "delivered")
	tb.Does("history.back()")
	tb.Sees("main [role=status]", "INSERT 0 1") // what came of the SQL is still there

	// It fails, is sent again, and the overview says so.
	tb.Types(".answer", "Status", "503")
	tb.Sees("main", "All triggers: answers 503 to all that comes, at once")
	tb.Clicks(".answer", "Set")
	tb.Sees("main ul", "all triggers: answers 503 to all that comes, at once")
	tb.RunsSQL("update orders set amount = 2")
	tb.Sees(".deliveries tbody tr", "order_changed UPDATE public.orders 2 valid 503")
	tb.Goes("#/")
	tb.Sees("main tr", "failing")
	tb.Sees("main", "answered 503")
	tb.Goes("#/dev")
	tb.Clicks("main", "Reset all triggers")
	tb.Sees("main ul", "all triggers: answers 200 to all that comes, at once")
	tb.Sees(".deliveries tbody tr", "valid 200")

	// Half of one trigger's events, and nobody's.
	tb.Does(`(() => { const s = document.querySelector(".answer select"); s.value = "user_added"; s.dispatchEvent(new Event("input", {bubbles: true})) })()`)
	tb.Types(".answer", "Share", "50")
	tb.Clicks(".answer", "Set")
	tb.Sees("main ul", "user_added: answers 503 to half of what comes, and 200 to the rest")
	tb.Clicks(".answer", "No answer")
	tb.Clicks(".answer", "Set")
	tb.Sees("main ul", "user_added: gives no answer to half of what comes, until the dispatcher gives up, and answers 200 to the rest")
}

func TestDevRunsSQLAndShowsWhatCameOfIt(t *testing.T) {
	t.Parallel()
	tb := newWorkbench(t).Opens(t)
	tb.RunsSQL("select null as nothing, 'null' as word, '' as empty, 12345678901234567890.10::numeric(30,2) as n, '<b>x</b>' as html")
	tb.Sees(".result th", "n numeric(30,2)")
	require.Equal(t, []string{"null", "null", "empty text", "12345678901234567890.10", "<b>x</b>"}, eval[[]string](tb, `[...document.querySelectorAll(".result td")].map((c) => c.innerText)`))
	require.Equal(t, []bool{true, false, true, false, false}, eval[[]bool](tb, `[...document.querySelectorAll(".result td")].map((c) => Boolean(c.querySelector("i")))`), "what is no text is told apart")
	require.Equal(t, "right", eval[string](tb, `getComputedStyle(document.querySelectorAll(".result td")[3]).textAlign`))

	tb.RunsSQL("select i from generate_series(1, 5000) i")
	tb.Sees("h3", "SELECT 5000: the first 1,000 rows")
	tb.RunsSQL("do $$ begin raise notice 'look here'; end $$")
	tb.Sees("main", "NOTICE: look here")

	tb.RunsSQL("select 'ä', 1;\nselect * frm orders")
	tb.Sees(".note", `syntax error at or near "frm" 42601`)
	tb.Sees("mark", "frm")
	tb.Clicks(".note", "Go to line 2, column 10")
	tb.wait("the word was not selected", `(() => { const a = document.activeElement; return a.id === "sql" && a.value.slice(a.selectionStart, a.selectionEnd) === "frm" })()`)
	tb.RunsSQL("select customr from orders")
	tb.Sees(".note", `Hint: Perhaps you meant to reference the column "orders.customer".`)

	// It is no superuser, and PostgreSQL's words say so.
	for sql, words := range map[string]string{
		"create role boss":                     "permission denied to create role",
		"copy orders from program 'id'":        "must be superuser or have privileges of the pg_execute_server_program role",
		"select pg_read_file('/etc/passwd')":   "permission denied for function pg_read_file",
		"alter role rowhook_dev superuser":     "superuser",
		"set role postgres":                    "permission denied to set role",
		"create table rowhook.mine (id int);;": "permission denied for schema rowhook",
	} {
		tb.RunsSQL(sql)
		tb.Sees(".note", words)
		tb.Sees(".note", "42501")
	}

	// What was run comes back.
	tb.Types("main", "SQL", "not run")
	press := func(key string) { tb.run(chromedp.KeyEvent(key, chromedp.KeyModifiers(chromedp.ModifierAlt))) }
	has := func(text string) {
		t.Helper()
		tb.wait("the box never had "+text, fmt.Sprintf(`document.getElementById("sql").value.includes(%q)`, text))
	}
	for range 6 + 1 {
		press(kb.ArrowUp)
	}
	has("select customr")
	for range 7 {
		press(kb.ArrowDown)
	}
	has("not run")
}

func TestDevChangesTheConfiguration(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	tb := b.Opens(t)
	tb.Sees(".judged", "This is applied")
	require.Equal(t, benchConfiguration, eval[string](tb, `document.getElementById("config").value`))

	tb.writes(strings.Replace(benchConfiguration, "insert: true", "inserts: true", 1))
	tb.Sees(".judged", "A problem keeps it from being applied")
	tb.Clicks(".judged", "Line 4, column 10")
	tb.wait("the place was not selected", `(() => { const a = document.activeElement; return a.id === "config" && a.value.slice(a.selectionStart, a.selectionEnd).startsWith("inserts: true") })()`)
	require.False(t, tb.Has("main", "Apply"), "the button is disabled")
	require.Equal(t, "true", eval[string](tb, `document.getElementById("config").getAttribute("aria-invalid")`))

	changed := strings.Replace(benchConfiguration, "limit: 20", "limit: 7", 1)
	tb.writes(changed)
	tb.Sees(".judged", "An apply would change: ~ change trigger order_changed")
	tb.Sees(".judged", "20 → 7")
	tb.Goes("#/")
	tb.Sees("main", "order_changed")
	tb.Goes("#/dev")
	tb.Sees(".judged", "20 → 7") // the text was kept
	tb.Clicks("main", "Apply")
	tb.Sees("[role=status]", "Applied. It is in the file, and has changed this:")
	tb.Sees(".judged", "This is applied")
	text, err := os.ReadFile(b.file)
	require.NoError(t, err)
	require.Equal(t, changed, string(text))
	tb.Goes("#/trigger/order_changed")
	tb.Sees("main", "limit: 7")
	tb.Goes("#/dev")

	// Somebody else's change is not overwritten without a word.
	tb.writes(strings.Replace(changed, "limit: 7", "limit: 9", 1))
	tb.Sees(".judged", "7 → 9")
	require.NoError(t, os.WriteFile(b.file, []byte(strings.Replace(changed, "user_added", "user_made", 1)), 0o600))
	tb.Sees(".note", "The file has changed since you read it")
	tb.Clicks("main", "What the file has now")
	tb.Sees("main details", "user_made")
	require.False(t, tb.Has("main", "Apply"))
	tb.Clicks(".note", "Keep mine")
	tb.Clicks("main", "Apply")
	tb.Sees("[role=status]", "Applied.")
	text, err = os.ReadFile(b.file)
	require.NoError(t, err)
	require.Contains(t, string(text), "limit: 9")

	// By the keyboard alone: Tab indents, Escape and Tab leave.
	tb.Types("main", "Configuration", "triggers:\n")
	tb.Press(kb.Tab)
	tb.wait("Tab did not indent", `document.getElementById("config").value === "triggers:\n  "`)
	tb.Escape()
	tb.Press(kb.Tab)
	tb.wait("Tab did not leave", `document.activeElement.id !== "config"`)
	require.Equal(t, "triggers:\n  ", eval[string](tb, `document.getElementById("config").value`))
}

// A table may go between the plan and the apply. Then the file itself, which has no draft, is judged
// as before, so that only the answer says why nothing was applied.
func TestDevSaysWhyTheFileWasNotApplied(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	tb := b.Opens(t)
	tb.Sees(".judged", "This is applied")
	eval[bool](tb, `(() => {
		const real = window.fetch;
		window.fetch = async (url, o) => {
			const response = await real(url, o);
			if (!String(url).includes("dev/config")) return response;
			const config = await response.json();
			if (String(o?.body).includes('"apply":true')) config.problems = [{line: 2, column: 5, key: "table", message: "there is no table public.gone"}], config.applied = false;
			else config.plan.changes = [{action: "change", object: "trigger", name: "order_changed", detail: "as in the file", differences: []}];
			return new Response(JSON.stringify(config), {status: response.status, headers: response.headers});
		};
		return true;
	})()`)
	tb.Sees(".judged", "An apply would change")
	tb.Clicks("main", "Apply")
	tb.Sees("[role=alert]", "It was not applied, and the file is as it was")
	tb.Sees("main", "there is no table public.gone")
	tb.Clicks("main", "Line 2, column 5")
	tb.wait("the place was not selected", `document.activeElement.id === "config"`)
}

func TestDevWithoutItsTokenRefusesSQLAndTheConfiguration(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	tb := newPerson(t).Tab(t, b.house, "#/dev")
	tb.Sees("main", "This needs the token SQL on the private database")
	tb.Sees("main", "The configuration is neither shown nor changed without it.")
	tb.Sees("main", `The line "Dashboard on …" that rowhook dev prints is a link that carries it`)
	tb.Sees("main", "Nothing has arrived yet")
	require.False(t, eval[bool](tb, `Boolean(document.getElementById("sql") || document.getElementById("config"))`))
	tb.Clicks(".answer", "Set") // that is allowed, as redelivering is
	tb.Sees("main ul", "all triggers: answers 503")
	for path, body := range map[string]string{"dev/sql": `{"sql": "select 1"}`, "dev/config": `{"text": "triggers: []"}`} {
		method := http.MethodPost
		if path == "dev/config" {
			method = http.MethodPut
		}
		r, err := http.NewRequestWithContext(t.Context(), method, b.Page()+"/api/v1/"+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		var problem struct{ Code string }
		require.NoError(t, json.NewDecoder(bytes.NewReader(text)).Decode(&problem))
		require.Equal(t, []any{http.StatusForbidden, "sql_needs_token"}, []any{response.StatusCode, problem.Code}, path)
	}
}

func TestDevOfTheSampleSaysWhatToDo(t *testing.T) {
	t.Parallel()
	b := runDev(t)
	tb := b.Opens(t)
	tb.Sees("main", "It can't be changed here: the sample has no file: start rowhook dev with -f FILE.")
	tb.Sees("main", "This is applied")
	require.False(t, tb.Has("main", "Apply"))
	tb.Clicks(".empty", "Put it into the SQL box")
	tb.Clicks("main", "Run")
	tb.Sees("main [role=status]", "INSERT 0 1")
	tb.Sees(".deliveries tbody tr", "order_changed INSERT public.orders 1 none 200")
	tb.Clicks("main", "Pause")
	tb.Sees("main", "stopped")
	tb.RunsSQL("update orders set customer = 'Bob'")
	tb.Sees("main [role=status]", "UPDATE 1")
	b.running.log.waitFor(t, `UPDATE  public\.orders`)
	require.NotContains(t, tb.text(".deliveries"), "UPDATE")
	tb.Clicks("main", "Go on")
	tb.Sees(".deliveries tbody tr", "order_changed UPDATE public.orders 1 none 200")
}

func TestAnInstallationThatWorksHasNoDevPage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/dev")
	tb.Sees("main", "Only rowhook dev has this page")
	require.False(t, tb.Has("nav", "Dev"))
}

func TestDevPictures(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	tb := b.Opens(t)
	tb.RunsSQL("insert into orders (customer, amount) select 'customer ' || n, n * 1.5 from generate_series(1, 12) n; select * from orders")
	tb.Sees(".deliveries", "valid")
	tb.Clicks(".answer", "Set")
	tb.writes(strings.Replace(benchConfiguration, "limit: 20", "limits: 7", 1))
	tb.Sees(".judged", "A problem")
	tb.Clicks(".deliveries tbody", "")
	tb.Sees(".deliveries .more", "POST")
	for _, state := range []string{"problem", "plan"} {
		if state == "plan" {
			tb.writes(strings.Replace(benchConfiguration, "limit: 20", "limit: 7", 1))
			tb.Sees(".judged", "20 → 7")
			tb.RunsSQL("insert into order values (1)")
			tb.Sees(".note", "syntax error")
		}
		for _, look := range []struct {
			name          string
			width, height int64
			scheme        string
		}{{"light", 1320, 1800, "light"}, {"dark", 1320, 1800, "dark"}, {"narrow", 360, 3600, "light"}} {
			tb.Looks(look.width, look.height, look.scheme)
			require.LessOrEqual(t, eval[int](tb, "document.documentElement.scrollWidth"), int(look.width), "the page is wider than the window")
			tb.Does("scrollTo(0, 0)")
			tb.Shot("dev-" + state + "-" + look.name)
			require.Empty(t, tb.barriers(), "what axe-core finds with a %s, %s", state, look.name)
		}
		tb.Looks(1320, 900, "light")
	}
}
