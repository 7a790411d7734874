// Package access says who may do what over HTTP: the scopes, and the file of named tokens.
package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/suggest"
)

// Scopes are a set of scopes.
type Scopes uint8

// The scopes. Each of the others includes Status, and Admin includes all: see With.
const (
	// Status shows how triggers and dispatchers are doing, without data of rows and of receivers.
	Status Scopes = 1 << iota
	// Payloads shows data of rows and the responses of receivers.
	Payloads
	// Steer pauses, resumes, redelivers, discards, and so on.
	Steer
	// Admin runs SQL, as a condition of a backfill does, and changes the configuration.
	Admin
	// All are all scopes.
	All = Status | Payloads | Steer | Admin
)

// Names returns the names of all scopes.
func Names() []string { return []string{"status", "payloads", "steer", "admin"} }

// With returns the scopes with those that they include.
func (s Scopes) With() Scopes {
	switch {
	case s&Admin != 0:
		return All
	case s != 0:
		return s | Status
	}
	return 0
}

// Has reports whether all of other are in s.
func (s Scopes) Has(other Scopes) bool { return s&other == other }

// Names returns the names of the scopes in s.
func (s Scopes) Names() []string {
	names := []string{}
	for i, name := range Names() {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String returns the names, separated by commas.
func (s Scopes) String() string { return strings.Join(s.Names(), ",") }

// ParseScopes reads names that are separated by commas, and adds the scopes that they include.
func ParseScopes(text string) (s Scopes, err error) {
	for name := range strings.SplitSeq(text, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		i := slices.Index(Names(), name)
		if i < 0 {
			return 0, fmt.Errorf("there is no scope %q%s: write some of %s, separated by commas", name, suggest.Hint(name, Names()), strings.Join(Names(), ", "))
		}
		s |= 1 << i
	}
	return s.With(), nil
}
