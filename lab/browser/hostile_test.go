package browser_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Names as hostile as Postgres and rowhook.yaml allow. Whatever runs sets window.hacked.
const (
	hostileTable  = `"><img src=x onerror=hacked=1>' ${hacked=2}`
	hostileColumn = `</script><script>hacked=3</script>`
)

// hostileValues are values that somebody might take for something else than text, as a literal of JSON.
var hostileValues = map[string]string{
	"__proto__":             `{"hacked": 4, "toString": null}`,
	"constructor":           `{"prototype": {"hacked": 5}}`,
	"<b onclick=hacked=6>":  `"<svg onload=hacked=7><script>hacked=8</script>"`,
	"link":                  `"javascript:hacked=9"`,
	"template":              `"${hacked=10} {{hacked=11}} <%= hacked=12 %>"`,
	"bidi \u202egpj.exe":    `"\u202e\u2066 abc \u200f\u061c"`,
	"ansi":                  `"\u001b[2J\u001b]0;hacked\u0007\u009b31m"`,
	"nul":                   `"a\u0000b\ud800"`,
	"breaks":                `"one\r\ntwo\u2028three\u0085four"`,
	"marks":                 `"` + strings.Repeat("Z̷̧̨̢", 400) + `"`,
	"shell":                 `"'; touch /tmp/hacked; $(touch /tmp/hacked) ` + "`touch /tmp/hacked`" + ` \\' !!"`,
	"wide":                  `"` + strings.Repeat("W", 5000) + `"`,
	strings.Repeat("k", 63): `""`,
	"":                      `"no name"`,
}

// stubs catches what the page copies and saves.
const stubs = `window.copied = []; window.saved = [];
	navigator.clipboard.writeText = async (text) => void copied.push(text);
	delete window.showSaveFilePicker;
	const make = URL.createObjectURL;
	URL.createObjectURL = (blob) => { void blob.text().then((text) => saved.push(text)); return make(blob) };`

// tame asserts that nothing has run, that the page is not wider than the window, and that it shows
// nothing that hides.
func (tb *tab) tame(where string) {
	tb.t.Helper()
	require.False(tb.t, eval[bool](tb, `"hacked" in window || "hacked" in {} || document.title.includes("hacked")`), "something has run: %s", where)
	require.Zero(tb.t, eval[int](tb, `document.querySelectorAll("main img, main script, main iframe, main b[onclick], main svg[onload], dialog img, a[href^='javascript']").length`), where)
	require.LessOrEqual(tb.t, eval[int](tb, "document.documentElement.scrollWidth"), eval[int](tb, "innerWidth"), "%s is wider than the window", where)
	require.Empty(tb.t, eval[string](tb, `(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200f\u061c\u2028\u202a-\u202e\u2066-\u2069]/.exec(document.body.innerText) ?? [""])[0]`), "a character that hides: %s", where)
}

func TestHostileTextIsTextEverywhere(t *testing.T) {
	t.Parallel()
	h := buildHouse(t, "orders")
	quoted := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	h.Exec(t, fmt.Sprintf("create table %s (id bigint generated always as identity primary key, %s text, \"__proto__\" text, data json)", quoted(hostileTable), quoted(hostileColumn)))
	h.Apply(t, "triggers:\n"+h.trigger("orders")+fmt.Sprintf("  - name: constructor\n    table: %q\n    on: {insert: true, manual: true}\n    webhook: {url: %q, headers: {X-Shop: %q}}\n    retry: {limit: 0}\n    breaker: off\n",
		`public.`+quoted(hostileTable), h.Receiver.URL+"/constructor?<script>", `<img src=x onerror=hacked=14>`))
	h.Receiver.Answers("constructor", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		body := "<script>hacked=15</script>\x1b[31m\u202egpj \x00 " + strings.Repeat("<img src=x onerror=hacked=16>", 50)
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 422 <img src=x onerror=hacked=17>\r\nContent-Type: text/html\r\nX-Evil: </script><script>hacked=18</script>\r\nX-Wide: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
			strings.Repeat("w", 3000), len(body), body)
	})
	h.Command(t, "pause", "orders", "--reason", "<img src=x onerror=hacked=19> \u202egpj \x1b[31m "+strings.Repeat("w", 300))
	var members []string
	for name, value := range hostileValues {
		key, _ := jsonText(name)
		members = append(members, key+": "+value)
	}
	h.Run(t, "--instance-name", "<img src=x onerror=hacked=20> \u202egpj")
	h.Exec(t, fmt.Sprintf(`insert into %s (%s, "__proto__", data) values ($1, '<img src=x onerror=hacked=21>', $2)`, quoted(hostileTable), quoted(hostileColumn)),
		"<svg onload=hacked=22>", "{"+strings.Join(members, ", ")+"}")
	h.isSoon(t, 1, "select count(*) from rowhook.dead_letter")
	id := h.word(t, "select id::text from rowhook.dead_letter")

	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Does(stubs)
	for _, width := range []int64{1320, 360} {
		tb.Looks(width, 900, "light")
		for _, at := range []struct{ hash, shows string }{
			{"#/", "<img src=x onerror=hacked=19>"},
			{"#/trigger/constructor", "onerror=hacked=1>"},
			{"#/events", "onerror=hacked=1>"},
			{"#/events?q=error%3Ahacked%3D17", "onerror=hacked=1>"}, // its row has a NUL, for which no condition on data holds
			{"#/dead", "422"},
			{"#/dispatchers", "onerror=hacked=20>"},
			{"#/operations", "Nothing runs"},
			{"#/health", "connected"},
			{"#/audit", "onerror=hacked=19>"},
			{"#/event/" + id, "curl --globoff"},
			{"#/events?q=%3Cimg%20src%3Dx%20onerror%3Dhacked%3D23%3E", "hacked=23"},
			{"#/trigger/%3Cimg%20src%3Dx%20onerror%3Dhacked%3D24%3E", "hacked=24"},
			{"#/event/%3Cimg%20src%3Dx%20onerror%3Dhacked%3D25%3E", "hacked=25"},
			{"#/__proto__/x?q=%", "no such page"},
		} {
			if strings.Contains(at.hash, "hacked%3D2") {
				tb.Expects("40[04]")
			}
			tb.Goes(at.hash)
			tb.Sees("body", at.shows)
			tb.tame(at.hash)
		}
	}
	tb.Looks(1320, 900, "light")

	// The event keeps everything that was sent, its command is one command, and its fixture the body.
	tb.Goes("#/event/" + id)
	tb.Clicks("main", "Show all of the new data")
	for _, shown := range []string{hostileColumn, "hacked=22", "javascript:hacked=9", `\u0000b\ud800`, `\u202e`, "hacked=17", "hacked=18", "hacked=15"} {
		tb.Sees("main", shown)
	}
	tb.Clicks("main", "Save as a fixture")
	tb.Clicks("main", "Copy the command")
	tb.wait("what was copied and saved", "copied.length === 1 && saved.length === 1")
	require.Contains(t, eval[string](tb, "saved[0]"), "javascript:hacked=9")
	fixed := eval[string](tb, `(() => { const data = JSON.parse(saved[0]).event.data.new.data; return JSON.stringify([Object.keys(data).length, Object.getOwnPropertyDescriptor(data, "__proto__").value.hacked, data.nul, data.link]) })()`)
	require.JSONEq(t, fmt.Sprintf(`[%d, 4, "a\u0000b\ud800", "javascript:hacked=9"]`, len(hostileValues)), fixed)
	command := eval[string](tb, "copied[0]")
	require.True(t, strings.HasPrefix(command, "curl "), command)
	if bash, err := exec.LookPath("bash"); err == nil {
		// The shell is told that curl prints its arguments; whatever else it ran would fail or print, too.
		run := exec.CommandContext(t.Context(), bash, "--noprofile", "--norc", "-c", "set -e\ncurl() { printf '%s\\0' \"$@\"; }\n"+command)
		run.Env = []string{"LC_ALL=C.UTF-8", "PATH="}
		out, err := run.CombinedOutput()
		require.NoError(t, err, string(out))
		arguments := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		require.Equal(t, []string{"--globoff", "--request", "POST", "--url", h.Receiver.URL + "/constructor?<script>"}, arguments[:5])
		require.Equal(t, "--data-raw", arguments[len(arguments)-2])
	}
	tb.Press("?")
	tb.Sees("dialog", "Keys")
	tb.Escape()
	tb.Clicks("main", "Redeliver")
	tb.Sees("dialog", "Redeliver this event?")
	tb.tame("the question")
	tb.Clicks("dialog", "Cancel")
	tb.Goes("#/dead")
	tb.Clicks("main", "Discard constructor")
	tb.Sees("dialog", "Discard 1 event?")
	tb.tame("the question of a group")
	tb.Clicks("dialog", "Discard 1 event")
	h.isSoon(t, 0, "select count(*) from rowhook.dead_letter")
}

// jsonText is a text as a literal of JSON.
func jsonText(text string) (string, error) {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r > 0x7e && r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String(), nil
}

// buried records a dead letter with this row, and returns its id.
func (h *house) buried(t *testing.T, trigger, row string) string {
	t.Helper()
	h.Exec(t, fmt.Sprintf(`insert into rowhook.dead_letter (id, trigger_id, op, new, tries, created_at, reason)
		select rowhook.uuid7(), id, 'I', $1::text::json, 1, clock_timestamp(), 'answered 422' from rowhook.trigger where name = '%s'`, trigger), row)
	return h.word(t, "select id::text from rowhook.dead_letter order by id desc limit 1")
}

func TestRowsOfAnySizeAndDepthLeaveThePageUsable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	var keys []string
	for n := range 3000 {
		keys = append(keys, fmt.Sprintf(`"column %d": %d`, n, n))
	}
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Does(stubs)
	for _, row := range []struct{ what, text, shows, saved string }{
		{"a value of 1 MB", `{"id": 1, "note": "` + strings.Repeat("<img src=x onerror=hacked=1>", 40_000) + `"}`, "Show more of the new note", "hacked=1>\""},
		{"9,000 levels", `{"id": 1, "deep": ` + strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000) + `}`, "deep", strings.Repeat("]", 8000)},
		{"3,000 columns", `{` + strings.Join(keys, ", ") + `}`, "column 17", `"column 2999": 2999`},
		{"a list of 100,000", `{"list": [` + strings.Repeat("1,", 99_999) + `1]}`, "Show more of the new list", "1,\n"},
	} {
		tb.Goes("#/event/" + h.buried(t, "orders", row.text))
		tb.Sees("main", row.shows)
		tb.Sees("main", "As a command")
		tb.tame(row.what)
		require.Less(t, eval[int](tb, `document.querySelectorAll("main *").length`), 30_000, row.what)
		tb.Does("saved.length = 0")
		tb.Clicks("main", "Save as a fixture")
		tb.wait("the fixture of "+row.what, "saved.length === 1")
		require.True(t, eval[bool](tb, fmt.Sprintf("saved[0].includes(%q)", row.saved)), row.what)
		tb.Goes("#/events")
		tb.Sees("main", "dead")
		tb.tame("the list with " + row.what)
	}
}

func TestDigitsAreKeptOnTheWholeWay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	digits := map[string]string{
		"id": "9007199254740993", "amount": "12345678901234567890.1234567890", "zeros": "1.5000000000", "huge": "1e400", "tiny": "1E-400", "minus": "-0", "point": "-0.0", "plain": "7", "long": "0.1000000000000000055511151231257827",
	}
	row, inner := []string{}, []string{}
	for name, n := range digits {
		row = append(row, fmt.Sprintf("%q: %s", name, n))
		inner = append(inner, n)
	}
	id := h.buried(t, "orders", "{"+strings.Join(row, ", ")+`, "inner": {"list": [`+strings.Join(inner, ", ")+"]}}")
	h.buried(t, "orders", `{"id": 9007199254740992}`)
	tb := newPerson(t).SignedIn(t, h, adminToken, "#/event/"+id)
	tb.Does(stubs)
	tb.Sees("main", "As a command")
	tb.Clicks("main", "Save as a fixture")
	tb.Clicks("main", "Copy the body")
	tb.Clicks("main", "Copy the command")
	tb.wait("what was copied and saved", "copied.length === 2 && saved.length === 1")
	texts := append(eval[[]string](tb, "copied"), eval[string](tb, "saved[0]"), tb.text(".rows"), tb.text("main"))
	for name, n := range digits {
		require.Equal(t, n, eval[string](tb, fmt.Sprintf(`[...document.querySelectorAll(".rows tr")].find((r) => r.querySelector(".name")?.innerText === %q).querySelector("pre").innerText`, name)), name)
		for i, text := range texts {
			require.GreaterOrEqual(t, strings.Count(text, n), 2, "%s = %s in text %d:\n%.3000s", name, n, i, text)
		}
	}
	for filter, want := range map[string]int{"new.id:9007199254740993": 1, "new.id:9007199254740992": 1, "new.id:9007199254740994": 0, "new.amount:12345678901234567890.1234567890": 1, "new.amount:12345678901234567890.1234567891": 0, "new.huge:1e400": 1} {
		tb.Goes("#/events?q=" + filter)
		tb.wait("the filter stands in the box", fmt.Sprintf(`document.querySelector("#filter").value === %q`, filter))
		if want == 0 {
			tb.Sees("main", "No event matches")
		} else {
			tb.wait(filter, fmt.Sprintf(`document.querySelectorAll("tr[data-id]").length === %d`, want))
		}
	}
}
