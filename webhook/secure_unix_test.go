//go:build unix

package webhook

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestAPipeAsATLSFileDoesNotHoldUpAnything(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	c := newClient(t, ClientConfig{})
	ep := endpoint(t, trigger.Webhook{URL: "https://127.0.0.1:1", TLS: trigger.TLS{CAFile: pipe}})
	require.EqualError(t, c.Prepare(ep), "tls.ca_file "+pipe+": is no regular file")
}
