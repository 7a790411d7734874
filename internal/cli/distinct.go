package cli

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/config"
)

// distinct finds sources that are one database by different addresses. A nil *distinct finds none.
type distinct struct {
	mu     sync.Mutex
	places map[string]*place // by the names of their sources
}

// place is where a source is.
type place struct {
	// database identifies it by its server, which was started at a time of its own, unlike that of a copy
	// of its files, and by its number there.
	database string
	refused  error // it is that of another source
}

func newDistinct() *distinct { return &distinct{places: map[string]*place{}} }

// look takes in which database a session of a source is in. It returns an error if it is that of another
// source.
func (d *distinct) look(ctx context.Context, conn *pgx.Conn, source string) error {
	if d == nil {
		return nil
	}
	here := &place{}
	err := conn.QueryRow(ctx, "select pg_catalog.concat(extract(epoch from pg_catalog.pg_postmaster_start_time()), ' ', oid) from pg_catalog.pg_database where datname operator(pg_catalog.=) current_database()").Scan(&here.database)
	if err != nil {
		return fmt.Errorf("find out which database this is: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.places[source] = here
	for other, there := range d.places {
		if other != source && there.refused == nil && there.database == here.database {
			here.refused = fmt.Errorf("sources.%s.url, by another address, %s", source, config.SameDatabase(other))
		}
	}
	return here.refused
}

// refusal is what look has returned last for a source.
func (d *distinct) refusal(source string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.places[source]; p != nil {
		return p.refused
	}
	return nil
}

// forget forgets a source.
func (d *distinct) forget(source string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.places, source)
}
