package cli

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestDevOnceAcceptsOnlyTheExactBody(t *testing.T) {
	t.Parallel()
	body := fmt.Sprintf(`{"id":"0199a000-0000-7000-8000-000000000001","created_at":%q,"table":{"schema":"public","name":"orders"},`+
		`"trigger":{"name":"order_changed"},"event":{"op":"INSERT","data":{"old":null,"new":{"id":1,"amount":1.10}},`+
		`"session_variables":null,"trace_context":null},"delivery_info":{"current_retry":0,"max_retries":12}}`,
		time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
	const row = `{"id":1,"amount":1.10}`
	require.NoError(t, compareBody([]byte(body), "INSERT", "null", row))
	for what, wrong := range map[string]string{
		"a number lost a digit":    strings.Replace(body, "1.10", "1.1", 1),
		"another operation":        strings.Replace(body, "INSERT", "UPDATE", 1),
		"another table":            strings.Replace(body, "orders", "order", 1),
		"a retry":                  strings.Replace(body, `"current_retry":0`, `"current_retry":1`, 1),
		"no UUID":                  strings.Replace(body, "0199a000-", "", 1),
		"a UUID of version 4":      strings.Replace(body, "-7000-", "-4000-", 1),
		"an old event":             strings.Replace(body, `"created_at":"2`, `"created_at":"1`, 1),
		"a key more":               strings.Replace(body, `{"id"`, `{"x":1,"id"`, 1),
		"white space":              body + "\n",
		"half of it":               body[:len(body)/2],
		"the row in the old image": strings.Replace(strings.Replace(body, `"new":`+row, `"new":null`, 1), `"old":null`, `"old":`+row, 1),
	} {
		require.Error(t, compareBody([]byte(wrong), "INSERT", "null", row), what)
	}
}

func TestTimeSinceTheCommitIsNeverMadeUp(t *testing.T) {
	t.Parallel()
	require.Equal(t, "1.25 ms after the commit", sinceCommit(1250*time.Microsecond))
	require.Equal(t, "0.40 ms before the writer's commit returned", sinceCommit(-400*time.Microsecond))
}

func TestOnlyWhatMayPassIsWaitedFor(t *testing.T) {
	t.Parallel()
	for code, transient := range map[string]bool{
		pgerrcode.CannotConnectNow:                  true,  // starting up
		pgerrcode.TooManyConnections:                true,  // too many connections
		pgerrcode.InvalidPassword:                   false, // wrong password
		pgerrcode.InvalidAuthorizationSpecification: false, // no such role, or pg_hba.conf
		pgerrcode.InvalidCatalogName:                false, // no such database
		pgerrcode.InsufficientPrivilege:             false, // no right to connect
	} {
		what, got := diagnoseConnect(&pgconn.PgError{Code: code, Message: "no"})
		require.Equal(t, transient, got, code)
		require.NotEmpty(t, what.problem)
		require.NotEmpty(t, what.remedyFor("DATABASE_URL"))
		require.NotContains(t, what.remedyFor("DATABASE_URL"), "{}")
	}
}

func TestSizesAreReadAndWritten(t *testing.T) {
	t.Parallel()
	size := byteSize()
	for text, want := range map[string]int64{"1B": 1, "512KiB": 512 << 10, "64MiB": 64 << 20, "1024GiB": 1 << 40} {
		got, err := size.parse(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		back, err := size.parse(size.format(got))
		require.NoError(t, err)
		require.Equal(t, want, back)
	}
	for _, text := range []string{"", "1", "MiB", "-1MiB", "1.5MiB", "0KiB", "1025GiB", "64MB"} {
		_, err := size.parse(text)
		require.Error(t, err, text)
	}
}

func TestSignalsInQuickSuccessionAreOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		signals, done := make(chan os.Signal), make(chan struct{})
		var first, again int
		go heed(signals, done, func() { first++ }, func() { again++ })
		for range 3 {
			signals <- os.Interrupt
		}
		synctest.Wait()
		require.Equal(t, []int{1, 0}, []int{first, again})
		<-time.After(sameInterrupt)
		signals <- os.Interrupt
		synctest.Wait()
		require.Equal(t, []int{1, 1}, []int{first, again})
	})
}

func TestHelpIsWrappedWhereTheTerminalEnds(t *testing.T) {
	t.Parallel()
	for _, columns := range []int{70, 80, 200} {
		for _, args := range [][]string{{"--help"}, {"apply", "--help"}, {"status", "--help"}, {"events", "list", "--help"}, {"help", "run"}} {
			var out bytes.Buffer
			code := Run(t.Context(), args, []string{fmt.Sprintf("COLUMNS=%d", columns)}, strings.NewReader(""), &out, &out)
			require.Zero(t, code)
			for line := range strings.SplitSeq(out.String(), "\n") {
				if strings.HasPrefix(line, "  rowhook ") || strings.HasPrefix(line, "  ") && !strings.Contains(line, "  --") && !strings.HasPrefix(line, "       ") {
					continue // an example or a list of commands, which no one breaks
				}
				require.LessOrEqual(t, utf8.RuneCountInString(line), min(columns, 110), "%v: %s", args, line)
			}
		}
	}
}

func TestForwardedDeliveriesKeepThePathAndTheQueryOfTheConfiguredURL(t *testing.T) {
	t.Parallel()
	set := map[string]string{"APP": "https://user@shop.example:8443/base", "PORT": "3000", "TENANT": "acme", "EMPTY": ""}
	lookup := func(name string) (string, bool) { value, ok := set[name]; return value, ok }
	for _, c := range []struct{ app, configured, want string }{
		{"http://localhost:3000", "${UNSET}/hooks/orders", "http://localhost:3000/hooks/orders"},
		{"http://localhost:3000", "${EMPTY}/hooks/orders", "http://localhost:3000/hooks/orders"},
		{"http://localhost:3000", "${APP}/hooks/orders?a=1&b=%20", "http://localhost:3000/base/hooks/orders?a=1&b=%20"},
		{"http://localhost:3000/", "https://x.example:${PORT}/a%2Fb/", "http://localhost:3000/a%2Fb/"},
		{"http://localhost:3000/dev?key=1", "https://x.example:${UNSET}/${TENANT}?b=2#c", "http://localhost:3000/dev/acme?key=1&b=2"},
		{"http://localhost:3000", "https://x.example", "http://localhost:3000"},
		{"http://localhost:3000", "${UNSET}", "http://localhost:3000"},
		{"http://localhost:3000", "https://x.example?a=1", "http://localhost:3000?a=1"},
		{"http://me:pw@[::1]:3000/x", "https://x.example/y", "http://me:pw@[::1]:3000/x/y"},
	} {
		app, err := url.Parse(c.app)
		require.NoError(t, err)
		require.Equal(t, c.want, forwardURL(app, c.configured, trigger.Variables(lookup)), c.configured)
	}
}
