// JSON as people look at it: what changed between two rows, texts of bounded length, and their parts.

import { stringify } from "./json.js";
import { visibleLines } from "./visible.js";

/** How much of a long value is shown at first, and how much more each time. */
export const firstPart = 4_000;
export const nextPart = 200_000;
/** How many lines of a long value are shown at first. */
const firstLines = 60;

/** A value as indented JSON, whose invisible characters are escapes. @param {any} value */
export const text = (value) => visibleLines(stringify(value));

/**
 * The beginning of a text. left is how many characters are not in it.
 *
 * @param {string} all
 * @param {number} most
 * @returns {{shown: string, left: number}}
 */
export function beginning(all, most = firstPart) {
  let end = Math.min(all.length, most);
  if (most <= firstPart) {
    for (let lines = 0, at = -1; lines < firstLines; lines++) {
      at = all.indexOf("\n", at + 1);
      if (at < 0 || at >= end) break;
      if (lines === firstLines - 1) end = at;
    }
  }
  if (all.length - end < 200) end = all.length; // a button would take more room
  if (end < all.length && /[\ud800-\udbff]/.test(all[end - 1])) end--; // half of a character
  return { shown: all.slice(0, end), left: all.length - end };
}

const parts = /("(?:[^"\\]|\\.)*"?)(\s*:)?|(-?\d[\d.eE+-]*)|\b(true|false|null)\b/g;

/**
 * The parts of JSON text, to colour them: k(ey), s(tring), n(umber), w(ord), or "" for what is between.
 *
 * @param {string} json
 * @returns {[string, string][]}
 */
export function tokens(json) {
  /** @type {[string, string][]} */
  const out = [];
  let at = 0;
  for (const m of json.matchAll(parts)) {
    if (m.index > at) out.push(["", json.slice(at, m.index)]);
    if (m[1] !== undefined) out.push([m[2] === undefined ? "s" : "k", m[1]]);
    if (m[2] !== undefined) out.push(["", m[2]]);
    if (m[3] !== undefined) out.push(["n", m[3]]);
    if (m[4] !== undefined) out.push(["w", m[4]]);
    at = m.index + m[0].length;
  }
  if (at < json.length) out.push(["", json.slice(at)]);
  return out;
}

/**
 * @typedef {{name: string, old?: any, new?: any, change: "" | "changed" | "new" | "gone"}} Column a value that is undefined is not in the row
 * The columns of two rows, side by side. null: one of them is no row.
 *
 * @param {any} before a Map, or null
 * @param {any} after a Map, or null
 * @returns {Column[] | null}
 */
export function columns(before, after) {
  if (!(before instanceof Map || before === null) || !(after instanceof Map || after === null) || (before ?? after) === null) return null;
  const names = new Set([...(after?.keys() ?? []), ...(before?.keys() ?? [])]);
  const both = before !== null && after !== null;
  return [...names].map((name) => {
    const [o, n] = [before?.get(name), after?.get(name)];
    /** @type {Column["change"]} */
    let change = "";
    if (both && o === undefined) change = "new";
    else if (both && n === undefined) change = "gone";
    else if (both && stringify(o, 0) !== stringify(n, 0)) change = "changed";
    return { name, old: o, new: n, change };
  });
}

/**
 * The trace id of a trace context: a traceparent, an object with one, or Hasura's object. "": none.
 *
 * @param {any} context
 */
export function traceId(context) {
  const member = (/** @type {string} */ name) => (context instanceof Map ? context.get(name) : context?.[name]);
  const parent = typeof context === "string" ? context : context && typeof context === "object" ? member("traceparent") : "";
  const m = /^\s*[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/i.exec(typeof parent === "string" ? parent : "");
  let id = m ? m[1].toLowerCase() : "";
  const own = context && typeof context === "object" && !m ? member("trace_id") : "";
  if (typeof own === "string" && /^[0-9a-f]{1,32}$/i.test(own)) id = own.toLowerCase().padStart(32, "0");
  return /^0*$/.test(id) ? "" : id;
}
