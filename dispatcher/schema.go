package dispatcher

import (
	"context"

	"github.com/rowhook/rowhook/sqlschema"
)

// onSchema runs a statement that depends on the version of the schema rowhook. Dispatchers go on while that is migrated, up or down by
// one version: a statement that finds the schema changed is run once more for the version that there is now.
func (d *Dispatcher) onSchema(ctx context.Context, f func(schema int32) error) error {
	was := d.schema.Load()
	err := f(was)
	if err == nil || !sqlschema.IsOtherSchema(err) {
		return err
	}
	now, versionErr := sqlschema.SchemaVersion(ctx, d.writes)
	if versionErr != nil || now == was {
		return err
	}
	d.schema.Store(now)
	return f(now)
}
