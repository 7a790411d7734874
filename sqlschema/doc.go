// Package sqlschema is everything that Rowhook keeps in Postgres: the numbered migrations of the schema rowhook, the
// capture triggers that write a table's changes into rowhook.event_log (planned and applied from Specs), and the
// statements by which a dispatcher claims and settles events.
package sqlschema
