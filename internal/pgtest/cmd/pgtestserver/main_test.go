//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sethvargo/go-retry"
	"github.com/stretchr/testify/require"
)

func TestCommandGetsAServerAndItsStatusIsPassedOn(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "environment")
	code, err := run(t.Context(), []string{"--", "sh", "-c",
		`echo "$ROWHOOK_TEST_DATABASE_URL $ROWHOOK_TEST_POSTGRES_BIN $ROWHOOK_TEST_SERVER_IS_TEMPORARY" >"$1"; exit 3`, "sh", out}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 3, code)

	content, err := os.ReadFile(out)
	require.NoError(t, err)
	fields := strings.Fields(string(content))
	require.Len(t, fields, 3)
	require.FileExists(t, filepath.Join(fields[1], "postgres"))
	_, err = pgx.Connect(t.Context(), fields[0])
	require.ErrorContains(t, err, "connection refused", "the server ended with the command")
}

func TestSignalEndsTheCommandWithItsChildren(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "started")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan int, 1)
	go func() {
		// The inner shell reports that the signal has reached it, too.
		code, _ := run(ctx, []string{"--", "sh", "-c", `sh -c 'trap "touch \"$0.ended\"; exit" TERM; touch "$0"; while :; do sleep 0.05; done' "$1" & wait`, "sh", file}, io.Discard)
		result <- code
	}()
	waitFor(t, file)
	cancel()
	require.Equal(t, 130, <-result)
	waitFor(t, file+".ended")
}

func TestWithoutACommandItPrintsTheEnvironmentAndServes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var work string
	out := writerFunc(func(line []byte) {
		if value, ok := bytes.CutPrefix(line, []byte("export ROWHOOK_TEST_DATABASE_URL='")); ok {
			defer cancel()
			conn, err := pgx.Connect(ctx, string(bytes.TrimSuffix(value, []byte("'\n"))))
			if err != nil {
				work = err.Error()
				return
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if err := conn.QueryRow(ctx, "show work_mem").Scan(&work); err != nil {
				work = err.Error()
			}
		}
	})
	code, err := run(ctx, []string{"--set", "work_mem=7MB"}, out)
	require.NoError(t, err)
	require.Zero(t, code)
	require.Equal(t, "7MB", work)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, retry.Do(ctx, retry.NewConstant(10*time.Millisecond), func(context.Context) error {
		_, err := os.Stat(path)
		return retry.RetryableError(err)
	}))
}
