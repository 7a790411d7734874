import assert from "node:assert/strict";
import { test } from "node:test";
import { reason, terms } from "../static/lib/groups.js";

test("a reason is said once", () => {
  assert.equal(reason({ error: "answered 503 answered 503" }), "answered 503");
  assert.equal(reason({ error: "a b" }), "a b");
  assert.equal(reason({ error: "timed out" }), "timed out");
  assert.equal(reason({}), "");
});

test("a group is chosen by what it has in common", () => {
  assert.deepEqual(terms({ trigger: "x", error: "e e", status: "503", kind: "" }), [
    { word: "state", value: "dead" }, { word: "trigger", value: "x" }, { word: "status", value: "503" }, { word: "error", value: "e" },
  ]);
  assert.equal(terms({ trigger: "x", error: "" }), null, "these words would choose all of the trigger");
  assert.equal(terms({ error: "e" }), null, "the group of what has no group");
});
