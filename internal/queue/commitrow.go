package queue

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// CommitSchema is the first version of the schema rowhook with rowhook.commit_row.
const CommitSchema = 7

// mostCommitRows bounds how many rows are forgotten at once. Measured: 100,000 take half a second.
const mostCommitRows = 100_000

// ForgetCommitRows deletes what captures at commit have noted of rows in transactions that have ended,
// the oldest first. It returns how many there were. Rows that a dump brought from another server may
// be of transactions that are still to come here, and are deleted, too.
func ForgetCommitRows(ctx context.Context, tx pgx.Tx) (int64, error) {
	tag, err := tx.Exec(ctx, `
delete from rowhook.commit_row where ctid = any(array(
  select ctid from rowhook.commit_row where txid < pg_snapshot_xmin(pg_current_snapshot()) or txid >= pg_snapshot_xmax(pg_current_snapshot()) order by txid limit $1))`, mostCommitRows)
	if err != nil {
		return 0, fmt.Errorf("forget rows of transactions that have ended: %w", err)
	}
	return tag.RowsAffected(), nil
}
