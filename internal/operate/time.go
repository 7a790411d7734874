package operate

import (
	"regexp"
	"time"
)

// zone matches the offset at the end of a time: +00, +0530 or -03:30, with or without a space
// before it, or Z, UTC, GMT.
var (
	zone     = regexp.MustCompile(`^(.*\d)\s*(?:([+-])(\d{2})(?::?(\d{2}))?(?::?(\d{2}))?|([Zz]|(?i:utc|gmt)))$`)
	withTime = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}[Tt ]+\d{2}:\d{2}`)
)

// ParseTime reads a point in time. It accepts RFC 3339, the ISO style in which Postgres prints a
// timestamptz or a timestamp, both with or without seconds, and a day, which means its beginning. A
// text without a zone is in location. ok is false if the text is none of these.
func ParseTime(text string, location *time.Location) (time.Time, bool) {
	offset := "" // as Go reads it
	if withTime.MatchString(text) {
		if m := zone.FindStringSubmatch(text); m != nil {
			part := func(s string) string {
				if s == "" {
					return "00"
				}
				return s
			}
			text, offset = m[1], "+00:00:00"
			if m[6] == "" {
				offset = m[2] + part(m[3]) + ":" + part(m[4]) + ":" + part(m[5])
			}
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02t15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		var t time.Time
		var err error
		if offset == "" {
			t, err = time.ParseInLocation(layout, text, location)
		} else {
			t, err = time.Parse(layout+"-07:00:00", text+offset)
		}
		if err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
