package sqlschema

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/rowhook/rowhook/trigger"
)

// handsOver reports whether captures hand events over. An event with an order or a delay is not sent at
// once, and one at commit is not known when it is written first.
func handsOver(s *trigger.Spec) bool {
	return !atCommit(s) && !ordered(s) && s.Delay == 0 && !s.On.Truncate
}

// handover is the part of rowhook.capture by which events are handed over. Before version 8 of the
// schema it has none.
var handover = regexp.MustCompile(`(?s)  -- Hand-over begins\.\n.*?  -- Hand-over ends\.\n`)

// asksToHandOver reports whether the capture of a guarded trigger hands events over by the function of
// createHanding. definition is that of rowhook.capture.
func asksToHandOver(spec *trigger.Spec, rel *relation, definition string) bool {
	return guarded(spec, rel) && handsOver(spec) && handover.MatchString(definition)
}

// handing returns the signature of the function of createHanding. Programs from before it take it for
// one of the payload: they drop it with the trigger, and an uninstall of theirs knows it.
func (o own) handing() string { return o.payload() + `("char", json, json, json, json)` }

// createHanding makes the function that hands over an event of a guarded trigger, or returns false. Its
// caller is the owner of the table, who chooses nothing but the data: it gets JSON, since a row of the
// owner's types could bring code along. It reads the bell and writes the event as rowhook.capture does.
// A view could not: with defaults it would read to whom it hands over for each column, and the writer
// would announce to whom it likes.
func createHanding(of own, relationID int32) string {
	return "create or replace function " + of.payload() + `(op "char", old json, new json, session json, trace json) returns boolean language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
#variable_conflict use_variable
declare
  awake bigint;
  event uuid;
begin
  if op in ('I', 'U', 'D') and pg_current_xact_id() is not null and pg_sequence_last_value('rowhook.doorbell'::regclass) = 1 then
    awake := pg_sequence_last_value('rowhook.handover'::regclass);
    if awake > 0 and awake & ` + fmt.Sprintf("(2147483648 << (%d & 31))", of.id) + ` = 0 and ` + handedRoom + ` then
      awake := awake & 2147483647;
      event := rowhook.uuid7();
      insert into rowhook.event_log (id, trigger_id, relation_id, op, old, new, session, trace, due_at, claimed_by, tries, claim)
      values (event, ` + fmt.Sprintf("%d, %d", of.id, relationID) + `, op, old, new, session, trace, clock_timestamp() + interval '90 seconds', awake, 1, 1);
      perform set_config('rowhook.handed', concat(current_setting('rowhook.handed', true), '.'), true), pg_notify(concat('rowhook_take_', awake), concat('` + fmt.Sprint(of.id) + ` ', event));
      return true;
    end if;
  end if;
  return false;
end
$$`
}

// handedRoom is SQL that is true while a transaction may hand more events over.
const handedRoom = "coalesce(length(current_setting('rowhook.handed', true)), 0) < 8"

// handingParts take the places of the parts of rowhook.capture that hand over: its variables, and what it
// does. They look at the bell only to save the call while that says silence.
func handingParts(of own) []string {
	return []string{"  before  json;\n  after   json;\n", `  if coalesce(tg_argv[1], '') <> 'never' and pg_sequence_last_value('rowhook.doorbell'::regclass) = 1 and ` + handedRoom + ` then
    if tg_level = 'ROW' then
      before := row_to_json(old);
      after := row_to_json(new);
      if ` + of.payload() + `(tg_op::"char", before, after, session, trace) then
        return null;
      end if;
    elsif tg_op = 'INSERT' then
      select row_to_json(r.*) into after from inserted as r where (select count(*) from (select from inserted limit 2) as two) = 1;
      if found and ` + of.payload() + `('I', null, after, session, trace) then
        return null;
      end if;
    end if;
  end if;
`}
}

// handingCapture has a capture function ask the function of createHanding. JSON that was made for the
// call is not made again if that hands nothing over.
func handingCapture(definition string, of own) (string, error) {
	definition = strings.NewReplacer(
		"row_to_json(old), row_to_json(new), session", "coalesce(before, row_to_json(old)), coalesce(after, row_to_json(new)), session",
		"'I', row_to_json(r.*), session", "'I', coalesce(after, row_to_json(r.*)), session",
	).Replace(definition)
	for _, part := range handingParts(of) {
		at := handover.FindStringIndex(definition)
		if at == nil {
			return "", errChangedByHand
		}
		definition = definition[:at[0]] + part + definition[at[1]:]
	}
	return definition, nil
}
