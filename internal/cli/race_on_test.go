//go:build race

package cli_test

// raceFlags have the program that the tests run look for races, too.
func raceFlags() []string { return []string{"-race"} }
