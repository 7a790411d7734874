import assert from "node:assert/strict";
import { test } from "node:test";
import { Digits, parse, stringify } from "../static/lib/json.js";
import { beginning, columns, text, tokens, traceId } from "../static/lib/jsontext.js";

test("digits are kept", () => {
  for (const json of ["12345678901234567890.0000000001", "9007199254740993", "1.10", "1e400", "-0", "0.1", "7", "-12.5", "1E5", "[1.0,2.50]", '{"a":1.000}']) {
    assert.equal(stringify(parse(json), 0), json);
    assert.equal(stringify(parse(json, { maps: true }), 0), json);
  }
  assert.ok(parse("1.10") instanceof Digits);
  assert.equal(typeof parse("1.5"), "number");
});

test("keys keep their order and their meaning", () => {
  const json = '{"b":1,"10":2,"2":3,"__proto__":{"x":1},"constructor":null,"":4}';
  assert.equal(stringify(parse(json, { maps: true }), 0), json);
  assert.deepEqual(parse('{"__proto__":1}').__proto__, 1);
  assert.equal({}.x, undefined);
});

test("what is no JSON is an error", () => {
  for (const json of ["", "{", "[1,]", "01", "+1", "nul", '"\n"', "1 2", "{a:1}", "NaN", "'x'", '{"a" 1}', ".5", "1."]) assert.throws(() => parse(json), SyntaxError, json);
});

test("what is nested as deep as the server sends it is read and shown", () => {
  const deep = "[".repeat(9_900) + "]".repeat(9_900);
  assert.equal(stringify(parse(deep), 0), deep);
  assert.ok(text(parse(deep)).length < 200_000, "indents do not grow without bound");
  const members = '{"a":'.repeat(9_900) + "1" + "}".repeat(9_900);
  assert.equal(stringify(parse(members, { maps: true }), 0), members);
});

test("long values are cut, short ones are not", () => {
  assert.deepEqual(beginning("abc"), { shown: "abc", left: 0 });
  const long = "x".repeat(1_000_000);
  assert.equal(beginning(long).shown.length, 4_000);
  assert.equal(beginning(long).left, 996_000);
  assert.equal(beginning(long, 204_000).left, 796_000);
  assert.equal(beginning("x".repeat(4_100)).left, 0);
  assert.equal(beginning("line\n".repeat(500)).shown.split("\n").length, 60);
  assert.equal(beginning(`${"x".repeat(3_999)}😀${"x".repeat(999)}`).shown, "x".repeat(3_999));
});

test("the parts of JSON are told apart, and nothing is lost", () => {
  const json = text(parse('{"a:b":"c\\"d: 1","n":[-1.50e3,true,null],"t":"true"}'));
  assert.equal(tokens(json).map(([, part]) => part).join(""), json);
  const of = (kind) => tokens(json).filter(([k]) => k === kind).map(([, part]) => part);
  assert.deepEqual(of("k"), ['"a:b"', '"n"', '"t"']);
  assert.deepEqual(of("s"), ['"c\\"d: 1"', '"true"']);
  assert.deepEqual(of("n"), ["-1.50e3"]);
  assert.deepEqual(of("w"), ["true", "null"]);
  const cut = json.slice(0, 12);
  assert.equal(tokens(cut).map(([, part]) => part).join(""), cut);
});

test("columns side by side", () => {
  const row = (json) => parse(json, { maps: true });
  assert.deepEqual(columns(row('{"id":7,"a":1.0,"gone":1}'), row('{"id":7,"a":1.00,"added":null}')).map(({ name, change }) => [name, change]), [
    ["id", ""], ["a", "changed"], ["added", "new"], ["gone", "gone"],
  ]);
  assert.deepEqual(columns(null, row('{"id":7}')).map((c) => c.change), [""]);
  assert.equal(columns(null, row("[1]")), null);
  assert.equal(columns(null, null), null);
  assert.equal(columns(row('{"a":{"x":1}}'), row('{"a":{"x":1}}'))[0].change, "");
});

test("trace ids", () => {
  const id = "4bf92f3577b34da6a3ce929d0e0e4736";
  for (const json of [`"00-${id}-00f067aa0ba902b7-01"`, `{"traceparent":"00-${id.toUpperCase()}-00f067aa0ba902b7-01"}`, `{"trace_id":"${id}","span_id":"1"}`]) {
    assert.equal(traceId(parse(json, { maps: true })), id);
    assert.equal(traceId(parse(json)), id);
  }
  assert.equal(traceId({ trace_id: "a1" }), "a1".padStart(32, "0"));
  for (const json of ["null", "7", '"x"', "{}", '{"trace_id":"../../etc"}', '{"trace_id":"0"}', '{"traceparent":7}', "[1]"]) assert.equal(traceId(parse(json)), "", json);
});
