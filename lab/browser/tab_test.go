package browser_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// chromiumVariable names the browser's program.
const chromiumVariable = "ROWHOOK_TEST_CHROMIUM"

// startChromium starts the browser of all tests, once. Each test has a context of its own in it, as
// a private window has: nothing is shared between tests.
var startChromium = sync.OnceValues(func() (context.Context, error) {
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(os.Getenv(chromiumVariable)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("no-first-run", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1320, 900), chromedp.WSURLReadTimeout(patience))
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...) // it ends with the process
	browser, _ := chromedp.NewContext(allocator)
	return browser, chromedp.Do(browser)
})

// person is somebody with a browser window of their own.
type person struct {
	ctx  context.Context
	tabs int
}

// newPerson opens a private window. The test is skipped where there is no browser.
func newPerson(t *testing.T) *person {
	t.Helper()
	if os.Getenv(chromiumVariable) == "" {
		t.Skip("ROWHOOK_TEST_CHROMIUM is not set: scripts/test --browser sets it")
	}
	browser, err := startChromium()
	require.NoError(t, err)
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx))
	return &person{ctx: ctx}
}

// tab is one tab. What goes wrong in it fails the test, unless Expects names it.
type tab struct {
	t      *testing.T
	ctx    context.Context
	origin string

	mu       sync.Mutex
	problems []string
	expected []*regexp.Regexp
	asked    []string // the URLs of all requests
}

// Tab opens a tab at a path of the dashboard, such as #/events. Each is in a window of its own, so
// none is hidden; they share what tabs share.
func (p *person) Tab(t *testing.T, house *house, hash string) *tab {
	t.Helper()
	ctx := p.ctx
	if p.tabs++; p.tabs > 1 {
		var cancel context.CancelFunc
		ctx, cancel = chromedp.NewContext(p.ctx, chromedp.WithNewWindow(true))
		t.Cleanup(cancel)
	}
	tb := &tab{t: t, ctx: ctx, origin: house.Page()}
	require.NoError(t, chromedp.Listen(ctx, tb.hear))
	call(tb, network.Enable, network.EnableParams{})
	call(tb, cdplog.Enable, cdp.Empty{})
	call(tb, runtime.Enable, cdp.Empty{})
	tb.Open(hash)
	t.Cleanup(tb.check)
	return tb
}

func (tb *tab) hear(event any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		tb.problems = append(tb.problems, "exception: "+text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			var words []string
			for _, a := range e.Args {
				words = append(words, string(a.Value)+a.Description)
			}
			tb.problems = append(tb.problems, fmt.Sprintf("console.%s: %s", e.Type, strings.Join(words, " ")))
		}
	case *cdplog.EventEntryAdded:
		unready := strings.HasSuffix(e.Entry.URL, "/readyz") && strings.Contains(e.Entry.Text, "503") // an answer that the page shows
		if !unready && (e.Entry.Level == cdplog.EntryLevelError || e.Entry.Level == cdplog.EntryLevelWarning) {
			tb.problems = append(tb.problems, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		tb.asked = append(tb.asked, e.Request.URL)
		if !strings.HasPrefix(e.Request.URL, tb.origin+"/") && !strings.HasPrefix(e.Request.URL, "data:") && !strings.HasPrefix(e.Request.URL, "blob:") {
			tb.problems = append(tb.problems, "a request to another host: "+e.Request.URL)
		}
	case *network.EventLoadingFailed:
		if !e.Canceled && e.ErrorText != "net::ERR_ABORTED" {
			tb.problems = append(tb.problems, strings.TrimSpace(fmt.Sprintf("network: %s %s", e.ErrorText, e.BlockedReason)))
		}
	}
}

// requests returns the addresses of all requests until now, but for data and blobs.
func (tb *tab) requests() []string {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(tb.asked), func(u string) bool { return strings.HasPrefix(u, "data:") || strings.HasPrefix(u, "blob:") })
}

// Expects names problems that are part of the test, by an expression.
func (tb *tab) Expects(expression string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.expected = append(tb.expected, regexp.MustCompile(expression))
}

func (tb *tab) check() {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for _, p := range tb.problems {
		if !slices.ContainsFunc(tb.expected, func(e *regexp.Regexp) bool { return e.MatchString(p) }) {
			tb.t.Errorf("in the browser: %s", p)
		}
	}
	if tb.t.Failed() {
		tb.t.Logf("the page at the end:\n%s", tb.text("body"))
	}
}

// run does these actions, within patience.
func (tb *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	require.NoError(tb.t, chromedp.Do(ctx, actions...))
}

// call sends a command of the protocol.
func call[P, R any](tb *tab, command cdp.Command[P, R], parameters P) R {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, parameters)
	require.NoError(tb.t, err)
	return result
}

// Open goes to a path of the dashboard, and waits for the page.
func (tb *tab) Open(hash string) {
	tb.t.Helper()
	tb.run(chromedp.Navigate(tb.origin + "/" + hash))
	tb.wait("the page never came", `Boolean(document.querySelector("main"))`)
}

// SignedIn opens a tab that is signed in by a token.
func (p *person) SignedIn(t *testing.T, house *house, token, hash string) *tab {
	t.Helper()
	tb := p.Tab(t, house, "#token="+url.QueryEscape(token))
	tb.Sees("header", "Overview")
	if hash != "" {
		tb.Goes(hash)
	}
	return tb
}

// Goes changes the hash, as a link does.
func (tb *tab) Goes(hash string) {
	tb.t.Helper()
	tb.Does(fmt.Sprintf("location.hash = %q", hash))
}

// Does runs a script.
func (tb *tab) Does(script string) {
	tb.t.Helper()
	tb.run(chromedp.Evaluate[chromedp.Void](script, chromedp.EvalAwaitPromise))
}

// eval returns the value of a script.
func eval[T any](tb *tab, script string) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	require.NoError(tb.t, err, script)
	return value
}

// text returns the text of the elements that match, or "".
func (tb *tab) text(selector string) string {
	ctx, cancel := context.WithTimeout(tb.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.innerText).join("\n")`, selector)))
	if err != nil {
		return "no text: " + err.Error()
	}
	return text
}

// wait waits until an expression of JavaScript is true.
func (tb *tab) wait(what, expression string) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	err := chromedp.Do(ctx, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(0)))
	require.NoError(tb.t, err, "%s; the page shows:\n%s", what, tb.text("body"))
}

// Sees waits until an element that matches has this text.
func (tb *tab) Sees(selector, text string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("%s never had the text %q", selector, text), fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.innerText.replace(/\s+/g, " ").includes(%q))`, selector, text))
}

// SeesNot waits until no element that matches has this text.
func (tb *tab) SeesNot(selector, text string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("%s kept the text %q", selector, text), fmt.Sprintf(`![...document.querySelectorAll(%q)].some((e) => e.innerText.replace(/\s+/g, " ").includes(%q))`, selector, text))
}

// named is the expression of the first button, link or field with this accessible name, within an
// element that matches.
func named(within, name string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].flatMap((w) => [...w.querySelectorAll("button, a, input, select, textarea, [role=button], summary")])
		.find((e) => e.checkVisibility() && !e.disabled && (e.getAttribute("aria-label") ?? e.labels?.[0]?.innerText ?? e.innerText).trim().startsWith(%q))`, within, name)
}

// Clicks clicks on what has this name, within an element that matches: with the mouse, where it is.
// News may move it in that moment. Then the click goes elsewhere, and is made again.
func (tb *tab) Clicks(within, name string) {
	tb.t.Helper()
	for until := time.Now().Add(patience); ; {
		tb.wait(fmt.Sprintf("there never was %q in %s", name, within), "Boolean("+named(within, name)+")")
		at := eval[struct{ X, Y float64 }](tb, fmt.Sprintf(`(() => {
			const e = %s;
			if (!e) return {X: 0, Y: 0}; // it has gone again
			delete window.hit;
			document.addEventListener("click", (click) => (window.hit = e.contains(click.target)), {capture: true, once: true});
			e.scrollIntoView({block: "center"});
			const r = e.getBoundingClientRect();
			return {X: r.x + r.width / 2, Y: r.y + r.height / 2};
		})()`, named(within, name)))
		tb.run(chromedp.MouseClickXY(at.X, at.Y))
		if at.X > 0 && eval[bool](tb, "window.hit !== false") { // undefined: it has opened another page
			return
		}
		require.True(tb.t, time.Now().Before(until), "%q in %s never kept still; the page shows:\n%s", name, within, tb.text("body"))
	}
}

// Has reports whether there is something with this name now.
func (tb *tab) Has(within, name string) bool {
	tb.t.Helper()
	return eval[bool](tb, "Boolean("+named(within, name)+")")
}

// Types writes into the field with this name.
func (tb *tab) Types(within, name, text string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("there never was a field %q in %s", name, within), "Boolean("+named(within, name)+")")
	tb.Does(fmt.Sprintf(`(() => { const e = %s; e.focus(); e.select?.() })()`, named(within, name)))
	call(tb, input.InsertText, input.InsertTextParams{Text: text})
}

// Press presses keys, as kb names them: tb.Press("j"), tb.Press(kb.Enter).
func (tb *tab) Press(keys string) {
	tb.t.Helper()
	for _, key := range keys {
		events := kb.Encode(key)
		for _, e := range events {
			switch e.Type {
			case kb.KeyChar: // by itself it would be typed even if the page has taken the key
				continue
			case kb.KeyDown:
				if len(events) > 2 {
					e.Text = events[1].Text
				}
			default:
			}
			call(tb, input.DispatchKeyEvent, *e)
		}
	}
}

// Escape closes what is open.
func (tb *tab) Escape() { tb.t.Helper(); tb.Press(kb.Escape) }

// Hash returns where the tab is.
func (tb *tab) Hash() string {
	tb.t.Helper()
	return eval[string](tb, "location.hash")
}

// Waits waits for a hash that matches an expression.
func (tb *tab) Waits(expression string) {
	tb.t.Helper()
	tb.wait("the address never matched "+expression, fmt.Sprintf("new RegExp(%q).test(decodeURIComponent(location.hash))", expression))
}

// Looks sets the width, the height and the colours.
func (tb *tab) Looks(width, height int64, scheme string) {
	tb.t.Helper()
	tb.run(chromedp.EmulateViewport(width, height))
	call(tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// Shot saves a picture as NAME.png in the directory of ROWHOOK_TEST_SHOTS, if it is set.
func (tb *tab) Shot(name string) {
	tb.t.Helper()
	directory := os.Getenv("ROWHOOK_TEST_SHOTS")
	if directory == "" {
		return
	}
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	require.NoError(tb.t, err)
	require.NoError(tb.t, os.WriteFile(filepath.Join(directory, name+".png"), picture, 0o600))
}
