package dispatcher

import (
	"context"

	"github.com/rowhook/rowhook/internal/queue"
)

// Members is which processes are there to work on a database, of those that have a Config.Process.
type Members = queue.Members

// Members asks which processes are there. It may be called while Run runs.
func (d *Dispatcher) Members(ctx context.Context) (Members, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	return queue.ReadMembers(ctx, d.db.signs)
}
