package cli_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestNamedTokensAreMadeUsedAndRemoved(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	_, receiverURL := receiver(t)
	file := filepath.Join(t.TempDir(), "tokens")
	env := append(database(db.URL()), "ROWHOOK_HTTP_TOKENS="+file)
	code, _, stderr := rowhook(t, env, "run", "-f", ordersConfig(t, receiverURL), "--http", "127.0.0.1:0")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "there is no file of tokens")

	code, secret, stderr := rowhook(t, env, "token", "add", "ops", "--scope", "steer", "--until", "2099-01-31")
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "has the scopes status,steer until 2099-01-31T23:59:59Z")
	secret = strings.TrimSuffix(secret, "\n")
	require.Regexp(t, `^rwh_\S{43}$`, secret)
	p := start(t, env, "run", "-f", ordersConfig(t, receiverURL), "--http", "127.0.0.1:0", "--trace-link", "https://traces.example.com/{trace_id}")
	address := served(t, p)
	p.stderr.waitFor(t, "ready")

	status, text := ask(t, "GET", address, "/api/v1/me", secret, "")
	require.Equal(t, http.StatusOK, status, text)
	var me struct {
		Name, Database string
		TraceLink      string `json:"trace_link"`
		Instance       struct{ Name string }
	}
	require.NoError(t, json.Unmarshal([]byte(text), &me))
	require.Equal(t, "ops", me.Name)
	require.Equal(t, "https://traces.example.com/{trace_id}", me.TraceLink)
	require.Contains(t, me.Database, " on ")
	require.NotEmpty(t, me.Instance.Name)
	status, _ = ask(t, "POST", address, "/api/v1/pause", secret, `{"all": true}`)
	require.Equal(t, http.StatusOK, status)
	code, out, _ := rowhook(t, env, "audit", "--action", "pause", "--json")
	require.Zero(t, code)
	require.Contains(t, out, `"token ops"`)

	code, out, _ = rowhook(t, env, "token", "list", "--json")
	require.Zero(t, code)
	require.NotContains(t, out, secret)
	var list struct {
		Tokens []struct {
			Name   string
			Scopes []string
			Until  time.Time
			Ended  bool
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Equal(t, "ops", list.Tokens[0].Name)
	require.Equal(t, []string{"status", "steer"}, list.Tokens[0].Scopes)
	code, out, _ = rowhook(t, env, "token", "list")
	require.Zero(t, code)
	require.Regexp(t, `ops +status,steer +2099-01-31T23:59:59Z`, out)

	code, _, stderr = rowhook(t, env, "token", "remove", "ops")
	require.Zero(t, code, stderr)
	status, _ = ask(t, "GET", address, "/api/v1/me", secret, "")
	require.Equal(t, http.StatusUnauthorized, status)
	require.NoError(t, os.WriteFile(file, []byte("nonsense\n"), 0o600))
	status, _ = ask(t, "GET", address, "/api/v1/me", secret, "")
	require.Equal(t, http.StatusUnauthorized, status)
	p.stderr.waitFor(t, `can't read the file of tokens.*line 1`)
}

func TestWhatIsWrongWithATokenIsSaid(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens")
	for want, args := range map[string][]string{
		"which file has the tokens?":        {"list"},
		"missing --scope":                   {"add", "x", "--file", file},
		"did you mean payloads?":            {"add", "x", "--file", file, "--scope", "payload"},
		"has passed":                        {"add", "x", "--file", file, "--scope", "status", "--until", "2020-01-01"},
		`"soon" is no end`:                  {"add", "x", "--file", file, "--scope", "status", "--until", "soon"},
		"can't be the name of a token":      {"add", "a b", "--file", file, "--scope", "status"},
		`unknown command "rowhook token ad`: {"ad"},
	} {
		code, _, stderr := rowhook(t, nil, append([]string{"token"}, args...)...)
		require.Equal(t, 2, code, want)
		require.Contains(t, stderr, want)
	}
	require.NoFileExists(t, file)
	code, _, stderr := rowhook(t, nil, "run", "--trace-link", "https://traces.example.com/")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "{trace_id}")
}
