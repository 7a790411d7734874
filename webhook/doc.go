// Package webhook sends events: it builds the request body, signs it, POSTs it through a guarded client that keeps its
// connections, and says how the attempt went in terms that can be stored and shown to people, without any value that
// came from the environment.
package webhook
