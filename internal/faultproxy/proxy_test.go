package faultproxy_test

import (
	"bufio"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rowhook/rowhook/internal/faultproxy"
)

const (
	patience = time.Minute
	a        = 100 * time.Millisecond // moment, during which nothing may happen
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server accepts connections and returns them through a channel.
func server(t *testing.T) (address string, accepted <-chan *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	conns := make(chan *net.TCPConn, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() { require.NoError(t, l.Close()); <-done })
	return l.Addr().String(), conns
}

func through(t *testing.T) (p *faultproxy.Proxy, dial func() (near, far *net.TCPConn)) {
	t.Helper()
	address, accepted := server(t)
	p, err := faultproxy.Listen(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p, func() (near, far *net.TCPConn) {
		before := p.Open()
		c, err := net.Dial("tcp", p.Addr())
		require.NoError(t, err)
		near = c.(*net.TCPConn)
		t.Cleanup(func() { _ = near.Close() })
		select {
		case far = <-accepted:
		case <-time.After(patience):
			require.FailNow(t, "the connection was not passed on")
		}
		t.Cleanup(func() { _ = far.Close() })
		require.Eventually(t, func() bool { return p.Open() > before }, patience, time.Millisecond, "it may be accepted before it is counted")
		return near, far
	}
}

func say(t *testing.T, from *net.TCPConn, line string) {
	t.Helper()
	_, err := from.Write([]byte(line + "\n"))
	require.NoError(t, err)
}

func hear(t *testing.T, at *net.TCPConn, line string) {
	t.Helper()
	require.NoError(t, at.SetReadDeadline(time.Now().Add(patience)))
	got, err := bufio.NewReader(at).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, line+"\n", got)
}

func hearNothing(t *testing.T, at *net.TCPConn) {
	t.Helper()
	require.NoError(t, at.SetReadDeadline(time.Now().Add(a)))
	_, err := at.Read(make([]byte, 1))
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

func end(t *testing.T, at *net.TCPConn) error {
	t.Helper()
	require.NoError(t, at.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.Copy(io.Discard, at)
	if err == nil {
		return io.EOF
	}
	return err
}

func TestBytesAndEndsPassInBothDirections(t *testing.T) {
	t.Parallel()
	p, dial := through(t)
	near, far := dial()
	say(t, near, "hello")
	hear(t, far, "hello")
	say(t, far, "good day")
	require.NoError(t, far.CloseWrite())
	hear(t, near, "good day")
	require.ErrorIs(t, end(t, near), io.EOF)
	say(t, near, "still here")
	hear(t, far, "still here")
	require.NoError(t, near.Close())
	require.ErrorIs(t, end(t, far), io.EOF)
	require.Eventually(t, func() bool { return p.Open() == 0 }, patience, time.Millisecond)
}

func TestResetOfOneSideIsPassedOn(t *testing.T) {
	t.Parallel()
	_, dial := through(t)
	near, far := dial()
	require.NoError(t, far.SetLinger(0))
	require.NoError(t, far.Close())
	require.ErrorIs(t, end(t, near), syscall.ECONNRESET)
}

func TestCutEndsInOrderAndResetDoesNot(t *testing.T) {
	t.Parallel()
	p, dial := through(t)
	near, far := dial()
	require.Equal(t, 1, p.Cut())
	require.ErrorIs(t, end(t, near), io.EOF)
	require.ErrorIs(t, end(t, far), io.EOF)
	require.Eventually(t, func() bool { return p.Open() == 0 }, patience, time.Millisecond)
	near, far = dial()
	require.Equal(t, 1, p.Reset())
	require.ErrorIs(t, end(t, near), syscall.ECONNRESET)
	require.ErrorIs(t, end(t, far), syscall.ECONNRESET)
}

func TestStallHoldsBytesAndEndsBackUntilItIsHealed(t *testing.T) {
	t.Parallel()
	p, dial := through(t)
	near, far := dial()
	p.Set(faultproxy.Stall)
	say(t, near, "late")
	require.NoError(t, near.CloseWrite())
	hearNothing(t, far)
	p.Heal()
	hear(t, far, "late")
	require.ErrorIs(t, end(t, far), io.EOF)
}

func TestAbandonedConnectionsStayHalfOpenUntilHealed(t *testing.T) {
	t.Parallel()
	p, dial := through(t)
	near, far := dial()
	require.Equal(t, 1, p.Abandon())
	say(t, near, "into the void")
	say(t, far, "likewise")
	hearNothing(t, far)
	hearNothing(t, near)
	other, otherFar := dial()
	say(t, other, "a new one passes")
	hear(t, otherFar, "a new one passes")
	require.NoError(t, near.Close())
	hearNothing(t, far)
	p.Heal()
	require.ErrorIs(t, end(t, far), syscall.ECONNRESET)
	say(t, other, "and goes on")
	hear(t, otherFar, "and goes on")
}

func TestSlowBytesArriveFewAtATime(t *testing.T) {
	t.Parallel()
	p, dial := through(t)
	near, far := dial()
	p.Set(faultproxy.Slow)
	text := make([]byte, 320)
	began := time.Now()
	_, err := near.Write(text)
	require.NoError(t, err)
	require.NoError(t, far.SetReadDeadline(time.Now().Add(patience)))
	first := make([]byte, 320)
	n, err := far.Read(first)
	require.NoError(t, err)
	require.Less(t, n, 320)
	_, err = io.ReadFull(far, first[n:])
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 150*time.Millisecond)
}

func TestRefuseResetsNewConnectionsAndKeepsThePresentOnes(t *testing.T) {
	t.Parallel()
	p, dial := through(t)
	near, far := dial()
	p.Set(faultproxy.Refuse)
	c, err := net.Dial("tcp", p.Addr())
	if err == nil {
		require.ErrorIs(t, end(t, c.(*net.TCPConn)), syscall.ECONNRESET)
	}
	say(t, near, "present")
	hear(t, far, "present")
	p.Heal()
	near, far = dial()
	say(t, near, "new")
	hear(t, far, "new")
}

func TestATargetThatDoesNotListenIsAReset(t *testing.T) {
	t.Parallel()
	p, err := faultproxy.Listen(t.Context(), "127.0.0.1:1") // a port that the system gives to nobody
	require.NoError(t, err)
	defer p.Close()
	c, err := net.Dial("tcp", p.Addr())
	if err == nil {
		require.ErrorIs(t, end(t, c.(*net.TCPConn)), syscall.ECONNRESET)
	}
}
