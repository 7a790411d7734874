import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.setInterval = /** @type {any} */ (() => 0); // the clock of the page stands still, and nothing keeps the test alive
const { now } = await import("../static/lib/format.js");
const { capital, general, hint, together, trouble, troubles, verb } = await import("../static/lib/trouble.js");

const at = Date.parse("2026-11-26T02:00:00Z");
now.value = at;
/** @param {number} s */
const before = (s) => new Date(at - 1000 * s).toISOString();

/** A TriggerStatus, and what differs from one that is well. */
const T = (more = {}) => ({
  name: "orders", table: "public.orders", paused: false, removed: false, waiting: 0, in_flight: 0, retrying: 0, dead: 0, blocked_keys: 0, estimated: [],
  oldest_at: null, last_error_at: null, failing: false, failing_since: null, health: null, hanging: [], ...more,
});
const alive = (id, name = `d${id}`) => ({ id, name, alive: true, listens: true });
const S = (more = {}) => ({ instances: [alive(1)], warnings: [], blocked: [], triggers: [], all_paused: null, vacuum_held_back_by: null, ...more });
const warns = (code, more = {}) => ({ code, trigger: "orders", problem: `the problem of ${code}`, remedy: `the remedy of ${code}`, ...more });

const failing = { failing: true, failing_since: before(600), last_error_at: before(2), last_error: "answered 401 Unauthorized" };
const paused = { paused: true, pause: { at: before(60), by: "ada", reason: "migration" } };
const health = { state: "failing", endpoint: "http://x:1", host: true, since: before(300), reason: "connection refused by 10.0.0.1:1", probe_at: before(-12), prober_id: null, probes: 4 };
const hanging = { in_flight: 3, hanging: [{ attempts: 2, since: before(30), instance_id: 1 }, { attempts: 1, since: before(40), instance_id: 2 }] };
const blocked = { blocked_keys: 2, dead: 2, waiting: 5, failing: true, failing_since: before(600), last_error_at: before(600), last_error: "answered 422 Unprocessable Entity" };

// Each single state: kind, word, what its words contain, and what can be done.
for (const [name, t, s, kind, word, words, can] of [
  ["well", T(), S(), "ok", "delivers", [], ["pause"]],
  ["retries", T({ retrying: 1 }), S(), "ok", "delivers", ["1 is tried again"], ["pause"]],
  ["dead letters of before", T({ dead: 1 }), S(), "ok", "delivers", ["1 dead letter waits for you"], ["pause", "dead", "redeliver"]],
  ["a short queue", T({ waiting: 3, oldest_at: before(1) }), S(), "ok", "delivers", [], ["pause"]],
  ["a backlog", T({ waiting: 3000, oldest_at: before(65) }), S(), "ok", "catches up", ["3,000 events wait, the oldest for 1 min 5 s"], ["pause"]],
  ["removed", T({ removed: true, dead: 2 }), S(), "off", "removed", ["2 dead letters are left", "until somebody discards them"], ["dead"]],
  ["paused", T({ ...paused, waiting: 1 }), S(), "pause", "paused", ["by ada: “migration”", "1 event waits and loses nothing until somebody resumes it"], ["resume"]],
  ["paused, and nothing waits", T({ paused: true }), S(), "pause", "paused", ["what is written waits"], ["resume"]],
  ["not captured", T(), S({ warnings: [warns("uncaptured")] }), "bad", "not captured", ["the problem of uncaptured", "the remedy of uncaptured", "without an event", "backfill"], []],
  ["nobody sends", T({ waiting: 2, oldest_at: before(90) }), S({ instances: [{ ...alive(1), alive: false }] }), "bad", "waits for a dispatcher", ["2 events wait and lose nothing until one runs"], []],
  ["no dispatcher can send", T({ waiting: 2 }), S({ warnings: [warns("cannot_send")] }), "wait", "waits for its configuration", ["2 events wait and lose nothing until then"], []],
  ["one of two can't send", T({ waiting: 2 }), S({ instances: [alive(1), alive(2)], warnings: [warns("cannot_send")] }), "wait", "delivers by 1 of 2 dispatchers", ["Until then the others send its events"], []],
  ["two of two can't send", T(), S({ instances: [alive(1), alive(2)], warnings: [warns("cannot_send"), warns("cannot_send")] }), "wait", "waits for its configuration", ["What is written waits"], []],
  ["its host is away", T({ health, waiting: 4 }), S(), "bad", "failing", ["connection refused by 10.0.0.1:1. Nothing reaches http://x:1", "4 events wait for it and lose nothing", "the next in 12 s", "Nothing listens there"], ["pause"]],
  ["a probe runs", T({ health: { ...health, host: false, prober_id: 1 } }), S(), "bad", "failing", ["one runs now"], ["pause"]],
  ["coming back", T({ health: { ...health, state: "probing" }, waiting: 1 }), S(), "bad", "coming back", ["1 event is left"], ["pause"]],
  ["hangs", T(hanging), S(), "wait", "its endpoint hangs", ["3 attempts without an answer", "Break off"], ["cancel", "pause"]],
  ["slow, and does not hang yet", T({ in_flight: 1, hanging: [{ attempts: 1, since: before(3) }] }), S(), "ok", "delivers", [], ["pause"]],
  ["blocked keys", T(blocked), S({ blocked: [{ trigger: "orders", since: before(600) }] }), "wait", "2 keys blocked", ["answered 422", "does not accept what is sent", "redelivered or discarded"], ["dead", "redeliver"]],
  ["fails, and retries", T({ ...failing, retrying: 2 }), S(), "bad", "failing", ["answered 401", "secret", "2 events will be tried again by their schedule"], ["test", "pause"]],
  ["fails, and all are dead", T({ ...failing, dead: 1 }), S(), "bad", "failing", ["1 dead letter waits for you: redeliver it when the cause is mended"], ["test", "dead", "redeliver"]],
  ["fails, and nothing is left", T(failing), S(), "bad", "failing", ["the next event shows whether it works"], ["test", "pause"]],
  ["another warning", T(), S({ warnings: [warns("new_one")] }), "wait", "needs a look", ["the problem of new_one", "the remedy of new_one"], []],
]) {
  test(`a trigger: ${name}`, () => {
    const is = trouble(t, s);
    assert.equal(is.kind, kind);
    assert.equal(is.word, word);
    const text = [is.why, is.hint, is.next].filter(Boolean).join(" ");
    for (const w of words) assert.ok(text.includes(w), `${text}\nlacks ${w}`);
    assert.deepEqual(is.can, can);
    assert.doesNotMatch(text, /undefined|null|NaN/);
    assert.equal(is.also, undefined);
  });
}

test("a backlog of a trigger with a rate is no trouble, and says so", () => {
  const is = trouble(T({ waiting: 40, oldest_at: before(30) }), S(), { rate: { limit: "1/s" } });
  assert.deepEqual([is.kind, is.word, is.why], ["ok", "delivers at its rate", "40 events wait, the oldest for 30 s, since at most 1/s may be sent"]);
});

test("since when it fails is not the time of its last error", () => {
  assert.equal(trouble(T(failing), S()).since, before(600));
});

test("nothing that is wrong hides anything else", () => {
  const parts = [
    ["not captured", {}, { warnings: [warns("uncaptured")] }], ["paused", paused, {}], ["waits for its configuration", {}, { warnings: [warns("cannot_send")] }],
    ["failing", { health, waiting: 1 }, {}], ["its endpoint hangs", hanging, {}], ["2 keys blocked", { blocked_keys: 2, dead: 2 }, {}],
  ];
  for (let chosen = 1; chosen < 1 << parts.length; chosen++) {
    const here = parts.filter((_, i) => chosen & (1 << i));
    const t = T(Object.assign({}, ...here.map(([, more]) => more)));
    const s = S({ warnings: here.flatMap(([, , more]) => more.warnings ?? []) });
    const words = here.map(([word]) => word);
    assert.deepEqual(troubles(t, s).map((x) => x.word), words);
    const is = trouble(t, s);
    assert.equal(is.word, words[0]);
    for (const w of words.slice(1)) assert.ok(is.also.includes(verb(w)), `${is.also} lacks ${w}`);
    assert.equal(new Set(is.can).size, is.can.length, "no button is there twice");
    assert.ok(!t.paused || (is.can.includes("resume") && !is.can.includes("pause")), "a paused trigger can be resumed, and not paused");
  }
});

test("paused, failing, with dead letters: the pause comes first, with the buttons of all", () => {
  const is = trouble(T({ ...paused, ...failing, dead: 3 }), S());
  assert.equal(is.word, "paused");
  assert.equal(capital(is.also), "Besides, it is failing (answered 401 Unauthorized)");
  assert.deepEqual(is.can, ["resume", "test", "dead", "redeliver"]);
});

test("while it retries, blocked keys do not hide that it fails", () => {
  assert.deepEqual(troubles(T({ ...blocked, retrying: 1 }), S()).map((x) => x.word), ["failing", "2 keys blocked"]);
});

test("what is wrong with several in the same way is told once", () => {
  const ts = [T({ name: "a" }), ...["b", "c", "d"].map((name, i) => T({ name, ...failing, failing_since: before(100 * i), retrying: 2, dead: name === "c" ? 1 : 0 })), T({ name: "e", ...blocked })];
  const groups = together(ts, S());
  assert.deepEqual(groups.map((g) => [g.is.word, g.of.map((t) => t.name)]), [["failing", ["b", "c", "d"]], ["2 keys blocked", ["e"]]]);
  assert.equal(groups[0].is.since, before(200), "the earliest");
  assert.equal(groups[0].is.next, "6 events wait and are sent by themselves when the cause is mended; 1 dead letter waits for you: redeliver it then");
  assert.deepEqual(groups[0].is.can, ["dead", "redeliver"]);
  assert.deepEqual(groups[1].is.can, ["dead", "redeliver"], "one alone keeps its buttons");
  const alike = ["b", "c"].map((name) => T({ name, ...failing, dead: 1 }));
  assert.equal(together(alike, S())[0].is.next, "Nothing is waiting to be tried again; 2 dead letters wait for you: redeliver them then", "not the sentence about one");
  const unable = together(["b", "c"].map((name) => T({ name, waiting: 2 })), S({ warnings: ["b", "c"].map((trigger) => warns("cannot_send", { trigger })) }));
  assert.equal(unable[0].is.next, "the remedy of cannot_send. 4 events wait and are sent by themselves when the cause is mended");
});

test("hints fit what attempts come to", () => {
  for (const [text, word] of [
    ["answered 301 Moved Permanently", "Redirects"], ["answered 403 Forbidden", "secret"], ["answered 404 Not Found", "path"], ["answered 413", "too large"], ["answered 429 Too Many Requests", "rate"],
    ["answered 400 Bad Request", "answer"], ["answered 503 Service Unavailable", "overloaded"], ["answered 500", "log"], ["connection refused by 127.0.0.1:1", "Nothing listens"],
    ["no such host: nowhere.invalid", "DNS"], ["certificate signed by unknown authority", "certificate"], ["x:443 does not speak TLS: is its URL http, not https?", "URL"],
    ["no response within 60s", "too long"], ["timed out talking to 10.0.0.1:1", "too long"], ["no route to 10.0.0.1:1", "firewalls"], ["connection reset by 10.0.0.1:1", "breaks off"],
  ]) assert.ok(hint(text)?.includes(word), `${text}: ${hint(text)}`);
  assert.equal(hint("something else"), undefined);
});

test("what is wrong with the whole installation", () => {
  assert.deepEqual(general(S()), []);
  const said = general(S({
    instances: [], all_paused: { at: before(60), by: "ada", reason: "moving" }, triggers: [T({ paused: true })],
    warnings: [warns("schema_is_older", { trigger: undefined }), warns("uncaptured"), warns("never_heard_of", { trigger: undefined })],
    vacuum_held_back_by: { kind: "session", pid: 42, user: "ada", name: "psql", since: before(3600) },
  }), [{ name: "claiming", ok: false, detail: "read-only", remedy: "let it write" }, { name: "connected", ok: true }]);
  assert.deepEqual(said.map((x) => x.word), [
    "No dispatcher is alive", "This dispatcher can't take events", "everything is paused", "The schema is older than this program", "Needs a look", "Vacuum is held back",
  ]);
  assert.equal(new Set(said.map((x) => x.key)).size, said.length);
  assert.deepEqual(said[2].can, ["resumeAll"]);
  assert.match(said[5].next, /pg_terminate_backend\(42\)/);
});

test("all paused, and one resumed since", () => {
  const [is] = general(S({ all_paused: { at: before(60), by: "ada" }, triggers: [T({ paused: true }), T()] }));
  assert.equal(is.word, "all triggers were paused");
  assert.match(is.next, /some are resumed by now/);
});

test("a check that is told for each trigger is not told twice", () => {
  const sending = [{ name: "sending", ok: false, detail: "x" }];
  assert.deepEqual(general(S({ warnings: [warns("cannot_send")] }), sending), []);
  assert.equal(general(S(), sending)[0].word, "This dispatcher can send for no trigger");
});
