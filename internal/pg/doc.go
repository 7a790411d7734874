// Package pg is what Rowhook knows of Postgres itself: how names and literals are written, what an
// SQLSTATE says, and which settings a session must not take from its role or database.
package pg
