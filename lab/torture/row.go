package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// row is a row of a watched table. Its id and its version determine all of its content, so that a
// reader can tell whether it is as it was written. No version is ever used twice, not even by a
// transaction that was rolled back.
type row struct{ id, version int64 }

// createTable makes a watched table.
func createTable(name string) string {
	more := ""
	if name == tableOf(spanning) {
		more = ",\n  part bigint generated always as (" + partSQL + ") stored"
	}
	return "create table " + name + ` (
  id      bigint primary key,
  version bigint not null,
  amount  numeric not null,
  note    text not null,
  flag    boolean not null` + more + ")"
}

// mix turns numbers into a hash. It is the finalizer of SplitMix64.
func mix(numbers ...uint64) uint64 {
	var h uint64
	for _, n := range numbers {
		h += n + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// share turns a hash into a number from 0 to 1.
func share(h uint64) float64 { return float64(h>>11) / (1 << 53) }

func (r row) hash(what uint64) uint64 { return mix(uint64(r.id), uint64(r.version), what) }

// amount has more digits than a float, and zeros at its end.
func (r row) amount() string {
	h := r.hash(1)
	return fmt.Sprintf("%d%012d.%03d0", h%9000+1000, h>>20%1_000_000_000_000, h%1000)
}

func (r row) flag() bool { return r.hash(2)%2 == 0 }

// note is short for most rows. One in a hundred has some kilobytes. One in a thousand is too large
// for a claim to carry.
func (r row) note() string {
	pieces := [...]string{"plain words ", `"quoted" `, `back\slash `, "line\n", "tab\t", "ünïcødé ", "🦜 ", "<a&b> ", "\u2028", "\x01", "{\"json\": [1]} ", "' or 1=1 -- "}
	h := r.hash(3)
	size := int(h>>32%120) + 1
	switch h % 1000 {
	case 0:
		size = 70<<10 + int(h>>32%(80<<10))
	case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
		size = 4<<10 + int(h>>32%(12<<10))
	}
	var b strings.Builder
	for n := uint64(0); b.Len() < size; n++ {
		b.WriteString(pieces[mix(h, n)%uint64(len(pieces))])
	}
	return b.String()
}

// columns are rows as arrays for Postgres, one for each column.
type columns struct {
	ids, versions []int64
	amounts       []string
	notes         []string
	flags         []bool
}

func (c *columns) add(r row) {
	c.ids = append(c.ids, r.id)
	c.versions = append(c.versions, r.version)
	c.amounts = append(c.amounts, r.amount())
	c.notes = append(c.notes, r.note())
	c.flags = append(c.flags, r.flag())
}

// wholeRow and narrowRow are the columns that a configuration may choose for a payload.
const (
	wholeRow  = "id,version,amount,note,flag"
	narrowRow = "version,id,amount"
)

// readImage reads a row from an event's old or new image, and checks every column in it. null is no
// row.
func readImage(image []byte) (r row, ok bool, err error) {
	if len(image) == 0 || string(image) == "null" {
		return row{}, false, nil
	}
	var names []string
	values := map[string]json.RawMessage{}
	in := json.NewDecoder(bytes.NewReader(image))
	if t, err := in.Token(); err != nil || t != json.Delim('{') {
		return row{}, false, errors.New("no JSON object")
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return row{}, false, fmt.Errorf("read a key: %w", err)
		}
		var v json.RawMessage
		if err := in.Decode(&v); err != nil {
			return row{}, false, fmt.Errorf("read %s: %w", name, err)
		}
		names = append(names, name.(string))
		values[name.(string)] = v
	}
	if r.id, err = strconv.ParseInt(string(values["id"]), 10, 64); err != nil {
		return row{}, false, fmt.Errorf("read id: %w", err)
	}
	if r.version, err = strconv.ParseInt(string(values["version"]), 10, 64); err != nil {
		return row{}, false, fmt.Errorf("read version: %w", err)
	}
	if got := strings.Join(names, ","); got != wholeRow && got != narrowRow {
		return r, true, fmt.Errorf("its columns are %s", got)
	}
	return r, true, r.check(values)
}

func (r row) check(values map[string]json.RawMessage) error {
	if got := string(values["amount"]); got != r.amount() {
		return fmt.Errorf("amount is %s instead of %s", got, r.amount())
	}
	if got, ok := values["flag"]; ok && string(got) != strconv.FormatBool(r.flag()) {
		return fmt.Errorf("flag is %s", got)
	}
	if raw, ok := values["note"]; ok {
		var got string
		if err := json.Unmarshal(raw, &got); err != nil || got != r.note() {
			return fmt.Errorf("note is %.80s instead of %.80q", raw, r.note())
		}
	}
	return nil
}

// toJSON returns a row as an application would write it, for manual events.
func (r row) toJSON() (string, error) {
	note, err := json.Marshal(r.note())
	return fmt.Sprintf(`{"id":%d,"version":%d,"amount":%s,"note":%s,"flag":%t}`, r.id, r.version, r.amount(), note, r.flag()), err
}
