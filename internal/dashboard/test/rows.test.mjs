import assert from "node:assert/strict";
import { test } from "node:test";
import { Arrivals, merge } from "../static/lib/rows.js";

const rows = (...ids) => ids.map((id) => ({ id }));

test("what arrives is put in its place, and the newest are kept", () => {
  assert.deepEqual(merge(rows("5", "3"), rows("4", "9", "1")).map((r) => r.id), ["9", "5", "4", "3", "1"]);
  assert.deepEqual(merge(rows("5", "3"), rows("4", "9", "1"), 3).map((r) => r.id), ["9", "5", "4"]);
  assert.deepEqual(merge([{ id: "1", n: 1 }], [{ id: "1", n: 2 }, { id: "1", n: 3 }]), [{ id: "1", n: 3 }]);
});

test("what waits is bounded, and new ones are counted once", () => {
  const a = new Arrivals(2);
  for (const id of ["1", "2", "3", "3", "1"]) a.add({ id });
  assert.deepEqual(a.fresh(rows("2")), { count: 2, more: false });
  assert.deepEqual(a.take().map((r) => r.id), ["2", "3"]);
  assert.deepEqual(a.fresh([]), { count: 0, more: false });
  for (let i = 0; i < 20_000; i++) a.add({ id: String(i) });
  assert.deepEqual(a.fresh([]), { count: 10_000, more: true });
  assert.equal(a.take().length, 2);
});
