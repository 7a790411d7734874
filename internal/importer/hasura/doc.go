// Package hasura reads event triggers of Hasura's metadata for an import: directories of the versions 2
// and 3, exported JSON, and calls of the metadata API.
package hasura
