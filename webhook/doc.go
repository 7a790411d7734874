// Package webhook sends events to webhooks. It builds the request body, signs it, and POSTs it by a
// client that keeps connections and rejects forbidden addresses. A [Result] says how the attempt
// went. It can be stored and shown to people: no value from the environment is in it.
package webhook
