//go:build !race

package cli_test

func raceFlags() []string { return nil }
