// Package sqlschema installs what Rowhook keeps in Postgres: the numbered migrations of the schema
// rowhook, and the capture triggers that write a table's changes into rowhook.event_log. An apply is
// planned first; the plan can be shown. What a running dispatcher does in that schema is internal.
package sqlschema
