// Package trigger defines a trigger of rowhook.yaml: which changes of which table it captures,
// where it sends them, and how it retries. The package knows nothing of Postgres or HTTP.
package trigger
