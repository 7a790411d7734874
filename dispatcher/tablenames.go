package dispatcher

import (
	"context"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// namesFor is how long the names of tables that are no longer watched are used before they are read
// again.
const namesFor = time.Second

// tableNames gives events the name of their own table where their trigger watches another table by
// now.
type tableNames struct {
	names map[int32]queue.TableName // of rowhook.relation, as read at `at`
	at    time.Time
}

// give names the tables of events. wants say which table each trigger watches.
func (n *tableNames) give(ctx context.Context, db pg.Queryer, wants []queue.Want, events []queue.Claimed) error {
	own, other := queue.OwnTables(wants, events)
	if !other {
		return nil
	}
	unknown := func(id int32) bool { _, ok := n.names[id]; return id != 0 && !ok }
	if time.Since(n.at) > namesFor || slices.ContainsFunc(own, unknown) {
		names, err := queue.NameRelations(ctx, db, nil)
		if err != nil {
			return err
		}
		n.names, n.at = names, time.Now()
	}
	for i, id := range own {
		if name, ok := n.names[id]; ok {
			events[i].Own = &name
		}
	}
	return nil
}
