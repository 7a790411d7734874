package docs_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/webhook"
)

// TestTheReceiversTakeWhatIsSignedOnce runs each receiver of receivers.md, and sends it what is right
// and what is not.
func TestTheReceiversTakeWhatIsSignedOnce(t *testing.T) {
	t.Parallel()
	built := filepath.Join(t.TempDir(), "receiver")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", built, "../examples/receivers/go").CombinedOutput()
	require.NoError(t, err, string(out))
	for name, command := range map[string][]string{
		"go":     {built},
		"node":   {"node", "../examples/receivers/node/receiver.mjs"},
		"python": {"python3", "../examples/receivers/python/receiver.py"},
		"ruby":   {"ruby", "../examples/receivers/ruby/receiver.rb"},
	} {
		for _, secret := range []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain-text"} {
			t.Run(name+" "+secret[:5], func(t *testing.T) {
				t.Parallel()
				if _, err := exec.LookPath(command[0]); err != nil {
					t.Skip(command[0] + " is missing")
				}
				r := startReceiver(t, secret, command)
				const body = `{"id": "0199abcd-ef01-7abc-8def-000000000007", "trigger": {"name": "order_placed"},
					"event": {"op": "INSERT", "data": {"old": null, "new": {"id": 7, "customer": "Zoë"}}}}`
				now := time.Now()
				require.Equal(t, http.StatusNoContent, r.post(t, secret, now, body, nil))
				require.Equal(t, http.StatusNoContent, r.post(t, secret, now, body, nil), "the same again is accepted")
				require.Equal(t, http.StatusUnauthorized, r.post(t, "whsec_AAAA", now, body, nil), "another secret")
				require.Equal(t, http.StatusUnauthorized, r.post(t, secret, now.Add(-time.Hour), body, nil), "an old request")
				require.Equal(t, http.StatusUnauthorized, r.post(t, secret, now, body, func(h http.Header) { h.Del("Webhook-Signature") }))
				require.Equal(t, http.StatusUnauthorized, r.post(t, secret, now, body, func(h http.Header) { h.Set("Webhook-Timestamp", "soon") }))
				require.Equal(t, http.StatusUnauthorized, r.post(t, secret, now, body, func(h http.Header) { h.Set("Webhook-Id", "another") }))
				require.Equal(t, http.StatusNoContent, r.post(t, secret, now, body, func(h http.Header) {
					h.Set("Webhook-Signature", "v1,AAAA "+h.Get("Webhook-Signature"))
				}), "one of several signatures")
				require.Equal(t, http.StatusBadRequest, r.post(t, secret, now, "no JSON", nil))
				require.Equal(t, http.StatusBadRequest, r.post(t, secret, now, "{}", nil))
				r.stop()
				require.Equal(t, 1, strings.Count(r.out.String(), "order_placed INSERT"), r.out.String())
			})
		}
	}
}

type runningReceiver struct {
	url  string
	out  *output
	stop func()
}

// output is what a program has written so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// startReceiver starts a receiver on a free port, and waits until it says that it listens.
func startReceiver(t *testing.T, secret string, command []string) *runningReceiver {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	r := &runningReceiver{out: &output{}}
	cmd.Env = append(os.Environ(), "ORDERS_SECRET="+secret, "LISTEN=127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = r.out, r.out
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	r.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(r.stop)
	require.Eventually(t, func() bool { return listening.MatchString(r.out.String()) }, time.Minute, 20*time.Millisecond, "it does not listen: %v", command)
	r.url = "http://" + listening.FindStringSubmatch(r.out.String())[1] + "/orders"
	return r
}

func (r *runningReceiver) post(t *testing.T, secret string, at time.Time, body string, change func(http.Header)) int {
	t.Helper()
	signature, err := webhook.Sign(secret, "0199abcd", at, []byte(body))
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Webhook-Id", "0199abcd")
	req.Header.Set("Webhook-Timestamp", fmt.Sprint(at.Unix()))
	req.Header.Set("Webhook-Signature", signature)
	if change != nil {
		change(req.Header)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}
