package webhook

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAHeartbeatIsCalledByGet(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 2)
	s := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	c := newClient(t, ClientConfig{Version: "1"})
	ep, err := NewHeartbeat("${BASE}/ping/x?a=b", time.Minute, env("BASE", s.URL))
	require.NoError(t, err)
	r := c.Ping(t.Context(), ep)
	require.True(t, r.Delivered(), r.Err)
	got := <-seen
	require.Equal(t, "GET", got.Method)
	require.Equal(t, "/ping/x?a=b", got.RequestURI)
	require.Zero(t, got.ContentLength)
	require.Equal(t, http.Header{"User-Agent": {"Rowhook/1"}}, got.Header)

	ep, err = NewHeartbeat(s.URL+"/gone", time.Minute, env())
	require.NoError(t, err)
	r = c.Ping(t.Context(), ep)
	require.False(t, r.Delivered())
	require.Contains(t, r.Err, "404")
	_, err = NewHeartbeat("${NONE}", time.Minute, env())
	require.ErrorContains(t, err, "NONE")
	r = c.Ping(t.Context(), ep)
	require.False(t, r.Delivered())
}
