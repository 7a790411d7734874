import assert from "node:assert/strict";
import { test } from "node:test";
import { complete, fromQuery, nearest, ofFilter, parse, time, toFilter, toQuery, words, write } from "../static/lib/filter.js";

const now = Date.parse("2026-11-26T12:00:00Z");
const id = "0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90";
const query = (text) => {
  const { terms, faults } = parse(text, now);
  assert.deepEqual(faults, [], text);
  return toQuery(terms, now);
};
const fault = (text) => {
  const { faults } = parse(text, now);
  assert.equal(faults.length, 1, text);
  return faults[0].text;
};

test("words are parameters", () => {
  assert.deepEqual(query('state:dead trigger:x table:public.orders op:update status:5XX kind:Refused error:"no route" since:1h until:2026-11-26T11:30Z'), {
    state: ["dead"], trigger: ["x"], table: "public.orders", op: ["UPDATE"], status: ["5xx"], kind: ["refused"], error: "no route",
    since: "2026-11-26T11:00:00.000Z", until: "2026-11-26T11:30:00.000Z",
  });
  assert.deepEqual(query(""), {});
  assert.deepEqual(query("  "), {});
});

test("a word takes several values", () => {
  assert.deepEqual(query("state:dead,retrying state:in-flight trigger:a trigger:b,a"), { state: ["dead", "retrying", "in_flight"], trigger: ["a", "b"] });
  assert.match(fault("table:a table:b"), /table can be given once/);
});

test("an id may stand alone", () => {
  assert.deepEqual(query(id.toUpperCase()), { id: [id] });
  assert.deepEqual(query(`id:${id}`), { id: [id] });
  assert.match(fault("id:0199"), /write the whole id/);
});

test("one value of a row is KEY=VALUE, several are a path", () => {
  assert.equal(query("new.id:7").payload, "new.id=7");
  assert.equal(query('new.name:"Ann \\"x\\" = y"').payload, 'new.name=Ann "x" = y');
  assert.equal(query("session.x-hasura-user-id:7").payload, "session_variables.x-hasura-user-id=7");
  assert.equal(query("payload:new.id=7").payload, "new.id=7");
  assert.equal(query('payload:"new.\\"a.b\\"=7"').payload, '$ ? (exists(@.new."a.b" ? (@ == "7" || @ == 7)))');
  assert.equal(fromQuery({ payload: 'new."a.b"=7' }), 'payload:"new.\\"a.b\\"=7"');
  assert.equal(query("new.id:7 old.state:open").payload, '$ ? (exists(@.new."id" ? (@ == "7" || @ == 7)) && exists(@.old."state" ? (@ == "open")))');
  assert.equal(query('payload:"$.new.amount ? (@ > 100)"').payload, "$.new.amount ? (@ > 100)");
  assert.match(fault('payload:"$.new.amount ? (@ > 100)" new.id:7'), /stands alone/);
  assert.match(fault("payload:amount"), /JSON path/);
});

test("a value can't leave its string in a path", () => {
  const { payload } = query(String.raw`new.a:"\" || true) || (@ == \"\\" new.b:1`);
  assert.equal(payload, String.raw`$ ? (exists(@.new."a" ? (@ == "\" || true) || (@ == \"\\")) && exists(@.new."b" ? (@ == "1" || @ == 1)))`);
  assert.equal(query('new.a:"1 || true" new.b:true').payload, '$ ? (exists(@.new."a" ? (@ == "1 || true")) && exists(@.new."b" ? (@ == "true" || @ == true)))');
});

test("an unknown word is named, and the nearest one", () => {
  assert.match(fault("stat:dead"), /“stat”.*state:dead\?/);
  assert.match(fault("triger:x"), /“triger”.*trigger:x\?/);
  assert.match(fault("colour:red"), /“colour”; write one of state, trigger/);
  assert.match(fault("timeout"), /“timeout” is not a word.*error:timeout/);
  assert.match(fault("state:daed"), /did you mean state:dead\?/);
  assert.match(fault("kind:blue"), /write one of refused/);
  assert.match(fault("status:700"), /503/);
  assert.match(fault("new:7"), /new\.id:7/);
  assert.match(fault("state"), /state needs a value, such as state:dead/);
  assert.match(fault("state:"), /needs a value/);
  assert.match(fault('error:"open'), /quote/);
  assert.match(fault("since:yesterday"), /since can't be/);
  assert.match(fault("since:1h until:2h"), /must be before/);
  const { faults } = parse("state:dead nope:1", now);
  assert.deepEqual([faults[0].from, faults[0].to], [11, 17]);
});

test("times", () => {
  const at = (text) => new Date(time(text, now)).toISOString();
  assert.equal(at("90s"), "2026-11-26T11:58:30.000Z");
  assert.equal(at("1h30m"), "2026-11-26T10:30:00.000Z");
  assert.equal(at("2w"), "2026-11-12T12:00:00.000Z");
  assert.equal(at("2026-11-01T10:00Z"), "2026-11-01T10:00:00.000Z");
  assert.equal(at("2026-11-01 10:00:00.25+0530"), "2026-11-01T04:30:00.250Z");
  assert.equal(at("2026-11-01 10:00:00+02"), "2026-11-01T08:00:00.000Z");
  assert.equal(time("2026-11-01T10:00", now), new Date(2026, 10, 1, 10).getTime());
  assert.equal(time("2026-11-01", now), new Date(2026, 10, 1).getTime());
  for (const text of ["", "1", "h", "2026-02-30", "2026-13-01", "25:00", "10:60", "-1h"]) assert.ok(Number.isNaN(time(text, now)), text);
  const noon = new Date(2026, 10, 26, 12).getTime();
  assert.equal(time("11:30", noon), new Date(2026, 10, 26, 11, 30).getTime());
  assert.equal(time("13:00", noon), new Date(2026, 10, 25, 13).getTime());
});

test("words to a query and back", () => {
  for (const text of [
    "", "state:dead", "state:dead state:retrying trigger:x", "table:public.orders op:INSERT", `id:${id}`, "new.id:7", "new.customer.id:7 old.x:y",
    'new.name:"a \\"b\\" \\\\ c"', 'session.x-role:admin trace.trace_id:1 error:"no route to"', "status:503 kind:timeout since:2026-11-01T10:00:00.000Z until:2026-11-02T10:00:00.000Z",
    'payload:"$.new.amount ? (@ > 100)"', "new.a:null new.b:1.50", 'new.a:"" new.b:x', 'new.a:") && exists(@.new.\\"x\\"" new.b:x',
  ]) {
    const once = query(text);
    const back = fromQuery(once);
    assert.deepEqual(query(back), once, `${text} became ${back}`);
    assert.equal(fromQuery(query(back)), back);
  }
  assert.equal(fromQuery(query("new.customer.id:7 old.x:y")), "new.customer.id:7 old.x:y");
  assert.equal(fromQuery(query("new.id:7")), "new.id:7");
  assert.equal(fromQuery(query("new.a:1 session.b:2")), "new.a:1 session.b:2");
  assert.equal(write(parse("state:dead,retrying", now).terms), "state:dead state:retrying");
});

test("a filter of a body has the plural names", () => {
  assert.deepEqual(toFilter(query(`state:dead trigger:x ${id} status:503 kind:dns op:insert table:t error:e new.id:7`)), {
    states: ["dead"], triggers: ["x"], ids: [id], statuses: ["503"], kinds: ["dns"], ops: ["INSERT"], table: "t", error: "e", payload: "new.id=7",
  });
});

test("a filter of a body is a query again", () => {
  const q = query(`state:dead trigger:x ${id} status:503 kind:dns op:insert table:t error:e new.id:7 since:1h`);
  assert.deepEqual(ofFilter(toFilter(q)), q);
});

test("completion", () => {
  const known = { triggers: ["order_placed", "user_changed", "orders"], tables: ["public.orders"] };
  const shown = (text, caret = text.length, k = known) => complete(text, caret, k).options.map((o) => o.show);
  assert.deepEqual(shown("st"), ["state:", "status:"]);
  assert.equal(shown("").length, Object.keys(words).length);
  assert.ok(!shown("", 0, { data: false }).some((w) => ["new.", "error:", "payload:"].includes(w)));
  assert.deepEqual(shown("state:de"), ["dead", "delivered"].filter((s) => s.startsWith("de")).sort((a, b) => (a === "delivered" ? -1 : 1)));
  assert.deepEqual(shown("trigger:order"), ["order_placed", "orders"]);
  assert.deepEqual(shown("trigger:changed"), ["user_changed"]);
  assert.deepEqual(shown("state:dead,"), ["waiting", "in_flight", "retrying", "delivered"]);
  assert.deepEqual(shown("nope:"), []);
  assert.deepEqual(shown("new.id"), []);
  const apply = (text, caret, n = 0) => {
    const { from, to, options } = complete(text, caret, known);
    return text.slice(0, from) + options[n].insert + text.slice(to);
  };
  assert.equal(apply("st", 2), "state:");
  assert.equal(apply("state:de op:insert", 8), "state:delivered op:insert");
  assert.equal(apply("state:dead,re", 13), "state:dead,retrying ");
  assert.equal(apply("op:insert tr", 12), "op:insert trigger:");
});

test("the nearest is near", () => {
  assert.equal(nearest("tabel", ["table", "trigger"]), "table");
  assert.equal(nearest("x", ["table", "trigger"]), "");
  assert.equal(nearest("", ["table"]), "");
});
