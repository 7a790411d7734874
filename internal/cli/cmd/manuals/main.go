// Manuals writes the manual pages and completion scripts of packages into a directory. The release
// runs it, see .goreleaser.yaml.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/rowhook/rowhook/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manuals: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("manuals", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory to write to, which is made anew")
	version := flags.String("version", "", "version of the program")
	seconds := flags.Int64("date", 0, "date of the pages, in seconds since 1970")
	example := flags.String("example", "rowhook.yaml", "annotated configuration")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *version == "" || *seconds == 0 {
		return fmt.Errorf("--dir, --version and --date are required")
	}
	text, err := os.ReadFile(*example)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(*dir); err != nil {
		return err
	}
	return cli.WriteManuals(*dir, *version, time.Unix(*seconds, 0), text)
}
