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

const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const plain = /[^"\\\u0000-\u001f]*/y;
const space = /[ \t\n\r]*/y;

/**
 * Parses JSON. Objects become plain objects without a prototype, or Maps if maps is true, which
 * keeps the order of keys that are numbers. A name such as __proto__ is an ordinary one in both.
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
  const name = () => {
    skip();
    if (text[at] !== '"') fail();
    const key = string();
    skip();
    expect(":");
    return key;
  };
  // Containers around the present value. The server sends up to 9,900 levels, for which recursion
  // has no room on the stack.
  /** @type {{container: any, key: string}[]} */
  const around = [];
  for (;;) {
    skip();
    /** @type {any} */
    let value;
    const c = text[at];
    if (c === "{" || c === "[") {
      at++;
      skip();
      value = c === "[" ? [] : options.maps ? new Map() : Object.create(null);
      if (text[at] !== (c === "{" ? "}" : "]")) {
        around.push({ container: value, key: c === "{" ? name() : "" });
        continue;
      }
      at++;
    } else if (c === '"') {
      value = string();
    } else if (c === "t") {
      expect("true");
      value = true;
    } else if (c === "f") {
      expect("false");
      value = false;
    } else if (c === "n") {
      expect("null");
      value = null;
    } else {
      number.lastIndex = at;
      const match = number.exec(text);
      if (!match) fail();
      const digits = /** @type {RegExpExecArray} */ (match)[0];
      at += digits.length;
      const n = Number(digits);
      value = String(n) === digits ? n : new Digits(digits);
    }
    for (;;) { // the value is whole: put it where it belongs, and those that are whole by that
      const inner = around[around.length - 1];
      skip();
      if (!inner) {
        if (at < text.length) fail();
        return value;
      }
      const { container, key } = inner;
      if (Array.isArray(container)) container.push(value);
      else if (container instanceof Map) container.set(key, value);
      else container[key] = value;
      if (text[at] === ",") {
        at++;
        if (!Array.isArray(container)) inner.key = name();
        break;
      }
      expect(Array.isArray(container) ? "]" : "}");
      around.pop();
      value = container;
    }
  }
}

/** Below this level everything stands on one line: indents would be longer than what they indent. */
const deepestIndent = 50;

/**
 * Writes JSON, indented by two spaces; indent 0: on one line.
 *
 * @param {any} value
 * @param {number} [indent]
 * @returns {string}
 */
export function stringify(value, indent = 2) {
  /** @type {string[]} */
  const out = [];
  /** @type {{members: any[], list: boolean, at: number, line: string, end: string}[]} */
  const around = [];
  for (let v = value; ;) {
    if (v instanceof Digits) {
      out.push(v.text);
    } else if (v === null || typeof v !== "object") {
      out.push(JSON.stringify(v) ?? "null");
    } else {
      const list = Array.isArray(v);
      const members = list ? v : v instanceof Map ? [...v] : Object.entries(v);
      const depth = around.length;
      const indented = indent > 0 && depth < deepestIndent;
      const line = (/** @type {number} */ levels) => (indented ? `\n${" ".repeat(levels * indent)}` : "");
      out.push(list ? "[" : "{");
      around.push({ members, list, at: 0, line: line(depth + 1), end: (members.length ? line(depth) : "") + (list ? "]" : "}") });
    }
    for (;;) {
      const inner = around[around.length - 1];
      if (!inner) return out.join("");
      if (inner.at === inner.members.length) {
        out.push(inner.end);
        around.pop();
        continue;
      }
      out.push(inner.at ? "," : "", inner.line);
      const member = inner.members[inner.at++];
      if (!inner.list) out.push(JSON.stringify(member[0]), inner.line ? ": " : ":");
      v = inner.list ? member : member[1];
      break;
    }
  }
}
