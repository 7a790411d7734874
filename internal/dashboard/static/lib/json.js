// JSON whose numbers keep their digits.
//
// JSON.parse rounds numbers of more than some 16 digits, such as a bigint or a numeric(38,10), and
// drops zeros at their end. parse returns such a number as a Digits, whose text is what was sent.

/** A number that JavaScript can't show as it was written. */
export class Digits {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
  valueOf() {
    return Number(this.text);
  }
}

/**
 * Object members keep their order, and a name such as __proto__ is an ordinary one.
 *
 * @typedef {null | boolean | number | string | Digits | Json[] | Map<string, Json>} Json
 */

const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const plain = /[^"\\\u0000-\u001f]*/y;
const space = /[ \t\n\r]*/y;

/**
 * Parses JSON. Objects become plain objects without a prototype, or Maps if maps is true, which
 * keeps the order of keys that are numbers.
 *
 * @param {string} text
 * @param {{maps?: boolean}} [options]
 * @returns {any}
 */
export function parse(text, options = {}) {
  let at = 0;
  const skip = () => {
    space.lastIndex = at;
    space.exec(text);
    at = space.lastIndex;
  };
  const fail = () => {
    throw new SyntaxError(`unexpected ${at < text.length ? JSON.stringify(text[at]) : "end"} at position ${at} of the JSON`);
  };
  const expect = (/** @type {string} */ word) => {
    if (!text.startsWith(word, at)) fail();
    at += word.length;
  };
  const string = () => {
    const start = at;
    at++;
    for (;;) {
      plain.lastIndex = at;
      plain.exec(text);
      at = plain.lastIndex;
      if (text[at] === '"') break;
      if (text[at] !== "\\") fail();
      at += 2;
    }
    at++;
    return JSON.parse(text.slice(start, at));
  };
  // Nesting is bounded by the server (9,900 levels), so the stack holds.
  const value = () => {
    skip();
    switch (text[at]) {
      case "{": {
        /** @type {any} */
        const object = options.maps ? new Map() : Object.create(null);
        at++;
        skip();
        if (text[at] === "}") {
          at++;
          return object;
        }
        for (;;) {
          skip();
          if (text[at] !== '"') fail();
          const key = string();
          skip();
          expect(":");
          const member = value();
          if (options.maps) object.set(key, member);
          else object[key] = member;
          skip();
          if (text[at] === ",") {
            at++;
            continue;
          }
          expect("}");
          return object;
        }
      }
      case "[": {
        /** @type {any[]} */
        const array = [];
        at++;
        skip();
        if (text[at] === "]") {
          at++;
          return array;
        }
        for (;;) {
          array.push(value());
          skip();
          if (text[at] === ",") {
            at++;
            continue;
          }
          expect("]");
          return array;
        }
      }
      case '"':
        return string();
      case "t":
        expect("true");
        return true;
      case "f":
        expect("false");
        return false;
      case "n":
        expect("null");
        return null;
    }
    number.lastIndex = at;
    const match = number.exec(text);
    if (!match) fail();
    const digits = /** @type {RegExpExecArray} */ (match)[0];
    at += digits.length;
    const n = Number(digits);
    return String(n) === digits ? n : new Digits(digits);
  };
  const result = value();
  skip();
  if (at < text.length) fail();
  return result;
}

/**
 * Writes JSON, indented by two spaces; indent 0: on one line.
 *
 * @param {any} value
 * @param {number} [indent]
 * @param {string} [margin]
 * @returns {string}
 */
export function stringify(value, indent = 2, margin = "") {
  if (value instanceof Digits) return value.text;
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  const inner = margin + " ".repeat(indent);
  const list = Array.isArray(value);
  const parts = list
    ? value.map((v) => stringify(v, indent, inner))
    : (value instanceof Map ? [...value] : Object.entries(value)).map(([k, v]) => `${JSON.stringify(k)}:${indent ? " " : ""}${stringify(v, indent, inner)}`);
  const [open, close] = list ? "[]" : "{}";
  if (!parts.length) return open + close;
  if (!indent) return open + parts.join(",") + close;
  return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${margin}${close}`;
}
