package pg

import (
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

func TestALoginThatFailsIsNobodysData(t *testing.T) {
	t.Parallel()
	for severity, is := range map[string]bool{"ERROR": true, "FATAL": false, "PANIC": false} {
		for _, code := range []string{"XX000", "53200", "22P02", "XX001"} {
			err := fmt.Errorf("settle: %w", &pgconn.PgError{SeverityUnlocalized: severity, Code: code})
			require.Equal(t, is, IsData(err), "%s %s", severity, code)
		}
	}
}

func TestWhatMayPassIsToldFromWhatDoesNot(t *testing.T) {
	t.Parallel()
	for code, may := range map[string]bool{
		"40001": true, "40P01": true, "53100": true, "53200": true, "55P03": true, "57014": true, "57P03": true, "58030": true, "25006": true,
		"42501": false, "42883": false, "22P02": false, "23505": false, "25P02": false, "P0001": false, "XX000": false, "": false,
	} {
		require.Equal(t, may, MayPass(fmt.Errorf("pause: %w", &pgconn.PgError{SeverityUnlocalized: "ERROR", Code: code})), code)
	}
	require.False(t, MayPass(io.EOF), "the server has said nothing")
}
