// Package pg holds what Rowhook knows of Postgres itself: how to write names and literals, what an
// SQLSTATE means, and which settings a session must not take from its role or database.
package pg
