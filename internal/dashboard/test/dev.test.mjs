import assert from "node:assert/strict";
import { test } from "node:test";
import { answerWords, around, indexOf, indexOfLine, isNumber } from "../static/lib/dev.js";

test("an answer is said in words", () => {
  for (const [answer, words] of [
    [{}, "answers 200 to all that comes, at once"],
    [{ status: 503 }, "answers 503 to all that comes, at once"],
    [{ status: 503, share: 1 }, "answers 503 to all that comes, at once"],
    [{ status: 503, share: 0.5 }, "answers 503 to half of what comes, and 200 to the rest"],
    [{ status: 429, share: 0.07, delay: "2s" }, "answers 429 to 7 % of what comes, and 200 to the rest, after 2s"],
    [{ status: 202, delay: "500ms" }, "answers 202 to all that comes, after 500ms"],
    [{ hang: true }, "gives no answer to all that comes, until the dispatcher gives up"],
    [{ hang: true, share: 0.3 }, "gives no answer to 30 % of what comes, until the dispatcher gives up, and answers 200 to the rest"],
    [{ status: 500, more: true }, "answers 500 to all that comes, at once; and more, which the receiver was told at its own address"],
  ]) assert.equal(answerWords(answer), words);
});

test("positions are those of characters, as PostgreSQL and YAML count them", () => {
  const sql = "select '😀ä';\nselect * frm orders";
  const at = indexOf(sql, 23);
  assert.equal(sql.slice(at, at + 3), "frm");
  assert.deepEqual(around(sql, at), { line: 2, column: 10, before: "select * ", word: "frm", after: " orders" });
  assert.deepEqual(around("select (", indexOf("select (", 99)), { line: 1, column: 9, before: "select (", word: "", after: "" });
  assert.equal(indexOfLine("a: 1\nb😀: 2\nc: 3", 2, 3), 8);
  assert.equal(indexOfLine("a: 1\nb: 2", 1, Infinity), 4);
  assert.equal(indexOfLine("a: 1", 7, 3), 4);
});

test("types of numbers are told from others", () => {
  for (const type of ["bigint", "numeric(38,10)", "double precision", "integer"]) assert.ok(isNumber(type), type);
  for (const type of ["integer[]", "text", "numeric(38,10)[]", "int4range"]) assert.ok(!isNumber(type), type);
});
