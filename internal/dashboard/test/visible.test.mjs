import assert from "node:assert/strict";
import { test } from "node:test";
import { visible, visibleLines } from "../static/lib/visible.js";

test("controls, ANSI and directions become escapes", () => {
  for (const [text, shown] of [
    ["\u001b[31mred\u001b[0m", "\\u001b[31mred\\u001b[0m"],
    ["a\nb\tc\rd\0", "a\\nb\\tc\\rd\\u0000"],
    ["pay\u202egpj.exe", "pay\\u202egpj.exe"],
    ["\u2066x\u2069\u200e\u061c", "\\u2066x\\u2069\\u200e\\u061c"],
    ["zero\u200bwidth\ufeff soft\u00adhyphen\u2060", "zero\\u200bwidth\\ufeff soft\\u00adhyphen\\u2060"],
    ["\u009b31m csi \u007f", "\\u009b31m csi \\u007f"],
    ["line\u2028para\u2029", "line\\u2028para\\u2029"],
    ["tag \u{e0041}", "tag \\udb40\\udc41"],
    ["half \ud800.", "half \\ud800."],
    ["\u3164\u115f", "\\u3164\\u115f"],
  ]) assert.equal(visible(text), shown);
});

test("what people write stays", () => {
  for (const text of ["Grüße", "日本語", "العربية", "עברית", "नमस्ते", "👩‍👩‍👧 ❤️ 🇫🇷", "می‌خواهم", "<script>alert(1)</script>", "e\u0301", "\\u001b"]) assert.equal(visible(text), text);
});

test("marks do not pile up", () => {
  const shown = visible(`z${"\u0300".repeat(500)}`);
  assert.equal(shown.match(/\p{M}/gu).length, 8);
  assert.ok(shown.endsWith("\\u0300"));
});

test("null and numbers are text", () => {
  assert.equal(visible(null), "");
  assert.equal(visible(undefined), "");
  assert.equal(visible(7), "7");
});

test("lines stay lines", () => {
  assert.equal(visibleLines("a\r\nb\tc\rd\u001b"), "a\nb\tc\\rd\\u001b");
});

test("JSON says the same after it", () => {
  const value = { "\u202ekey": "\u0085 \u007f \u{e0041} \u2028 z" + "\u0301".repeat(12), list: [1, "a\nb"] };
  const text = JSON.stringify(value, null, 2);
  assert.notEqual(visibleLines(text), text);
  assert.deepEqual(JSON.parse(visibleLines(text)), value);
});
