// Package trigger says what a trigger of rowhook.yaml is: which changes of which table it captures, what
// it sends where, and how it retries. It knows nothing of Postgres and of HTTP.
package trigger
