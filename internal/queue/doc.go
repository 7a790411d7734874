// Package queue holds the statements of a running dispatcher. They claim and settle events, keep
// the doorbell and the list of instances, and maintain the history. A statement that is used
// wrongly loses or repeats events, so the package is internal. docs/architecture.md describes the
// protocol, and docs/model checks it.
package queue
