package pg

import (
	"fmt"
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
