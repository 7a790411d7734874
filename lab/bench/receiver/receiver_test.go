package receiver_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/lab/bench/receiver"
)

func serve(t *testing.T) (r *receiver.Receiver, url string) {
	t.Helper()
	r = receiver.New()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- r.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		require.NoError(t, <-done)
	})
	return r, "http://" + l.Addr().String()
}

func post(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestFirstArrivalIsStampedAndOthersAreDuplicates(t *testing.T) {
	t.Parallel()
	r, url := serve(t)
	r.Reset(3)
	before := time.Now().UnixNano()
	post(t, url, `{"event":{"data":{"old":null,"new":{"seq":2,"x":1}}}}`)
	first := r.Stamps()[2]
	require.GreaterOrEqual(t, first, before)
	post(t, url, `{"event":{"data":{"old":null,"new":{"seq":2,"x":1}}}}`)
	post(t, url, `{"event":{"data":{"old":null,"new":{"seq":4}}}}`)
	post(t, url, `{}`)
	s := r.Stats()
	s.Bytes = 0
	require.Equal(t, receiver.Stats{Distinct: 1, Duplicates: 1, Strange: 2, Requests: 4}, s)
	require.Equal(t, []int64{0, 0, first, 0}, r.Stamps())
}

func TestEachEventOfABatchIsStamped(t *testing.T) {
	t.Parallel()
	r, url := serve(t)
	r.Reset(3)
	post(t, url, `[{"sequence":9,"event":{"data":{"new":{"seq":3}}}},{"event":{"data":{"new":{"seq":1}}}},{"event":{"data":{"new":{"seq":3}}}}]`)
	s := r.Stats()
	s.Bytes = 0
	require.Equal(t, receiver.Stats{Distinct: 2, Duplicates: 1, Requests: 1}, s)
	require.Zero(t, r.Stamps()[2])
}

func TestAGateThatIsShutRefusesAndCounts(t *testing.T) {
	t.Parallel()
	r, url := serve(t)
	r.Reset(1)
	r.Shut(true)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/gate", strings.NewReader(`{"seq":1}`))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, int64(1), r.Stats().Refused)
	require.Zero(t, r.Stats().Distinct)
	post(t, url, `{"seq":1}`) // another path
	r.Shut(false)
	post(t, url+"/gate", `{"seq":1}`)
	require.Equal(t, int64(1), r.Stats().Duplicates)
}

func TestBodyLargerThanTheBufferIsReadWhole(t *testing.T) {
	t.Parallel()
	r, url := serve(t)
	r.Reset(2)
	body := `{"new":{"seq":1,"note":"` + string(bytes.Repeat([]byte("x"), 1<<20)) + `"}}`
	post(t, url, body)
	post(t, url, `{"new":{"seq":2}}`)
	require.EqualValues(t, 2, r.Stats().Distinct)
	require.EqualValues(t, len(body)+len(`{"new":{"seq":2}}`), r.Stats().Bytes)
}

func TestDelayHoldsTheAnswerBackButNotTheStamp(t *testing.T) {
	t.Parallel()
	r, url := serve(t)
	r.Reset(1)
	post(t, url+"/delay/60ms", `{"new":{"seq":1}}`)
	require.GreaterOrEqual(t, time.Since(time.Unix(0, r.Stamps()[1])), 60*time.Millisecond)
}

func TestRemoteAwaitReturnsWhenEnoughArrivedOrTimeIsOver(t *testing.T) {
	t.Parallel()
	r, url := serve(t)
	control := httptest.NewServer(r.Control())
	defer control.Close()
	remote := &receiver.Remote{URL: control.URL, Client: control.Client()}
	require.NoError(t, remote.Reset(t.Context(), 10))

	s, err := remote.Await(t.Context(), 1, 20*time.Millisecond)
	require.NoError(t, err)
	require.Zero(t, s.Distinct)

	got := make(chan receiver.Stats, 1)
	go func() {
		s, _ := remote.Await(context.WithoutCancel(t.Context()), 3, time.Minute)
		got <- s
	}()
	for i := range 3 {
		post(t, url, fmt.Sprintf(`{"new":{"seq":%d}}`, i+1))
	}
	require.EqualValues(t, 3, (<-got).Distinct)
	stamps, err := remote.Stamps(t.Context())
	require.NoError(t, err)
	require.Len(t, stamps, 11)
	require.NotZero(t, stamps[3])
}

func TestARowThatWasWrittenAsJSONBIsFound(t *testing.T) {
	t.Parallel()
	r, url := serve(t)
	r.Reset(3)
	post(t, url, `{"op": "INSERT", "data": {"new": {"seq": 3, "status": "placed"}}}`)
	require.EqualValues(t, 1, r.Stats().Distinct)
	require.NotZero(t, r.Stamps()[3])
}
