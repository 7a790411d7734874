// A request as a command for the shell.
//
// Rows, receivers and configurations are not trusted: whatever they hold is one argument, which the
// shell does not read. References such as ${TOKEN} stay text, so that no variable of whoever runs
// the command is sent by accident.

import { stringify } from "./json.js";
import { visibleLines } from "./visible.js";

/** The longest argument that Linux takes is 128 KiB. */
const longest = 100_000;

// A quote, or the end, behind a backslash that is none of a pair: within quotes, fish takes the two for
// a quote that does not end them.
const escapes = /(?<!\\)(\\\\)*\\('|$)/;

/**
 * A text as one argument. Characters that a terminal acts on, or that hide, are written as escapes.
 * bash, zsh and ksh know these. In dash and fish, which do not, the command fails or sends another
 * text, but nothing of the text is run: so no quote stands in it.
 *
 * @param {string} text
 */
export function quote(text) {
  const plain = text.replaceAll("\0", "");
  if (visibleLines(plain) === plain && !/[\n\t]/.test(plain) && !escapes.test(plain)) return `'${plain.replaceAll("'", `'\\''`)}'`;
  let out = "";
  for (const c of plain) {
    const n = /** @type {number} */ (c.codePointAt(0));
    if (c === "\\") out += "\\\\";
    else if (n < 0x20 || n === 0x7f || c === "'") out += `\\x${n.toString(16).padStart(2, "0")}`;
    else if (visibleLines(c) !== c || n > 0x7e) out += n > 0xffff ? `\\U${n.toString(16).padStart(8, "0")}` : `\\u${n.toString(16).padStart(4, "0")}`;
    else out += c;
  }
  return `$'${out}'`;
}

/**
 * The body of a request as it is sent: one that is no JSON is a string.
 *
 * @param {{headers?: Record<string, string>, body: any}} request
 * @param {number} [indent]
 */
export function sentBody({ headers = {}, body }, indent = 0) {
  const type = Object.entries(headers).find(([name]) => name.toLowerCase() === "content-type")?.[1] ?? "";
  return typeof body === "string" && type.startsWith("application/x-www-form-urlencoded") ? body : stringify(body, indent);
}

/**
 * @param {{method: string, url: string, headers?: Record<string, string>, body: any}} request body: null if there is none
 * @param {string} file where the body is, if it is too long for a command
 */
export function curl({ method, url, headers = {}, body }, file) {
  const lines = [`curl --globoff --request ${quote(method)} --url ${quote(url)}`];
  const all = Object.entries(headers);
  if (body !== null && !all.some(([name]) => name.toLowerCase() === "content-type")) all.unshift(["Content-Type", "application/json"]);
  for (const [name, value] of all) {
    const text = value === "" ? `${name};` : `${name}: ${value}`;
    lines.push(`--header ${quote(text.replace(/^@+/, ""))}`); // @ would be the name of a file
  }
  if (body === null) return lines.join(" \\\n  ");
  const data = visibleLines(sentBody({ headers, body }));
  lines.push(data.length > longest ? `--data-binary ${quote(`@${file}`)}` : `--data-raw ${quote(data)}`);
  return lines.join(" \\\n  ");
}

/**
 * What has to be filled in by hand: references, and values that are not shown.
 *
 * @param {{url: string, headers?: Record<string, string>, expands?: string[]}} request expands: other texts with references
 * @returns {string[]}
 */
export function missing({ url, headers = {}, expands = [] }) {
  const found = new Set([url, ...Object.values(headers), ...expands].flatMap((text) => text.match(/\$\{[^}]*\}/g) ?? []));
  for (const [name, value] of Object.entries(headers)) if (value === "<redacted>") found.add(`the header ${name}`);
  return [...found];
}
