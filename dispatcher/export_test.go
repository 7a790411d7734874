package dispatcher

import "github.com/rowhook/rowhook/sqlschema"

// Pretend has a dispatcher that does not run yet see what f makes of each Watch.
func Pretend(d *Dispatcher, f func(*sqlschema.Watch)) { d.pretend = f }
