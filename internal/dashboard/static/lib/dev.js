// What the page of rowhook dev says in words, and where something is in a text.

/** @typedef {{trigger?: string | null, status?: number, delay?: string, hang?: boolean, share?: number, more?: boolean}} Answer how the receiver answers */

/**
 * "answers 503 to half of what comes, and 200 to the rest".
 *
 * @param {Answer} a
 */
export function answerWords(a) {
  const some = a.share !== undefined && a.share < 1;
  const percent = Number(((a.share ?? 1) * 100).toPrecision(3));
  const whom = !some ? "all that comes" : percent === 50 ? "half of what comes" : `${percent} % of what comes`;
  const delay = a.delay && a.delay !== "0s" ? a.delay : "";
  let words = a.hang ? `gives no answer to ${whom}, until the dispatcher gives up` : `answers ${a.status || 200} to ${whom}`;
  if (some) words += `, and ${a.hang ? "answers 200" : "200"} to the rest`;
  if (delay) words += `, after ${delay}`;
  else if (!a.hang && !some) words += ", at once";
  return a.more ? `${words}; and more, which the receiver was told at its own address` : words;
}

/** Whether values of a type of PostgreSQL are numbers. @param {string} type */
export const isNumber = (type) => /^(smallint|integer|bigint|numeric|real|double precision|money|oid)(\(.*\))?$/.test(type);

/**
 * Where the nth character is: browsers count halves of characters. Beyond the end: the end.
 *
 * @param {string} text
 * @param {number} n from 1
 */
export const indexOf = (text, n) => [...text].slice(0, Math.max(0, n - 1)).join("").length;

/**
 * Where a line and a column are, both from 1.
 *
 * @param {string} text
 * @param {number} line
 * @param {number} column
 */
export function indexOfLine(text, line, column) {
  const before = text.split("\n").slice(0, line - 1);
  const start = before.reduce((n, l) => n + l.length + 1, 0);
  return Math.min(text.length, start + indexOf(text.slice(start).split("\n", 1)[0], column));
}

/**
 * The line of a text around an index, in three parts: what is before it, the word there, and the rest.
 *
 * @param {string} text
 * @param {number} index
 */
export function around(text, index) {
  const start = text.lastIndexOf("\n", index - 1) + 1;
  const end = text.indexOf("\n", index);
  const rest = text.slice(index, end < 0 ? undefined : end);
  const word = /^(?:[\p{L}\p{N}_]+|.)/u.exec(rest)?.[0] ?? "";
  return { line: text.slice(0, index).split("\n").length, column: [...text.slice(start, index)].length + 1, before: text.slice(start, index), word, after: rest.slice(word.length) };
}

/**
 * Selects a part of a text area, and brings it into view.
 *
 * @param {HTMLTextAreaElement} area
 * @param {number} from
 * @param {number} to
 */
export function select(area, from, to) {
  area.focus();
  area.setSelectionRange(from, to);
  const height = parseFloat(getComputedStyle(area).lineHeight) || 18;
  area.scrollTop = (area.value.slice(0, from).split("\n").length - 4) * height;
}
