// Package queue is what a running dispatcher says to Postgres: it claims and settles events, keeps the
// doorbell and the list of instances, and looks after the history. A statement that is used wrongly
// loses or repeats events, so the package is internal. docs/architecture.md describes the protocol, and
// docs/model checks it.
package queue
