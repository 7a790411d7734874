// Package sqlschema installs what Rowhook keeps in Postgres: the migrations of the schema rowhook,
// and the capture triggers that write a table's changes into rowhook.event_log. An apply is planned
// first, and the plan can be shown. The statements of a running dispatcher are internal to Rowhook.
package sqlschema
