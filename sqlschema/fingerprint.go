package sqlschema

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
)

// Fingerprint returns a text that differs between programs whose migrations differ. Test suites use
// it to tell whether a database that an earlier program has migrated can be copied.
func Fingerprint() (string, error) {
	sum := sha256.New()
	files, err := migrations()
	if err != nil {
		return "", err
	}
	err = fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, name)
		fmt.Fprintf(sum, "%q %q\n", name, text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the migrations: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}
