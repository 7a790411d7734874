// Filters of events, as words: state:dead trigger:x new.id:7 error:"no route" since:1h
//
// The words are the parameters of /api/v1/events. Different words must all hold; of several values
// of a word, one must. A value with spaces stands in quotes.

/**
 * @typedef {{word: string, value: string}} Term word may be a path, such as new.customer.id
 * @typedef {{from: number, to: number, text: string}} Fault where it is, and what to do
 * @typedef {{terms: Term[], faults: Fault[]}} Parsed
 * @typedef {{
 *   id?: string[], trigger?: string[], state?: string[], op?: string[], table?: string, since?: string, until?: string,
 *   payload?: string, error?: string, status?: string[], kind?: string[],
 * }} Query the parameters of /api/v1/events
 */

export const states = ["waiting", "in_flight", "retrying", "delivered", "dead"];
export const ops = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "MANUAL"];
/** Kinds of failures without a response: webhook.Kinds. A test compares. */
export const kinds = [
  "refused", "dns", "tls", "timeout", "reset", "unreachable", "bad_url", "too_large", "denied", "token", "unauthorized", "rejected", "bad_answer", "canceled", "other",
];

/**
 * What each word means, whether it takes several values, and an example. data: it asks for the data
 * of rows or of responses, so the token must show those.
 *
 * @type {Record<string, {what: string, example: string, many?: boolean, data?: boolean, path?: boolean}>}
 */
export const words = {
  state: { what: "waiting, in_flight, retrying, delivered or dead", example: "dead", many: true },
  trigger: { what: "name of a trigger", example: "order_placed", many: true },
  table: { what: "table or schema.table", example: "public.orders" },
  op: { what: "insert, update, delete, truncate or manual", example: "update", many: true },
  id: { what: "id of an event", example: "0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90", many: true },
  new: { what: "a value of the new row, as new.id:7", example: "7", many: true, data: true, path: true },
  old: { what: "a value of the old row, as old.status:open", example: "open", many: true, data: true, path: true },
  session: { what: "a session variable, as session.x-user-id:7", example: "7", many: true, data: true, path: true },
  trace: { what: "a value of the trace context, as trace.trace_id:…", example: "4bf92f35", many: true, data: true, path: true },
  payload: { what: "a JSON path over old, new, session_variables and trace_context", example: '"$.new.amount ? (@ > 100)"', many: true, data: true },
  error: { what: "a part of the last attempt's error", example: "timeout", data: true },
  status: { what: "HTTP status of the last response", example: "5xx", many: true },
  kind: { what: "why the last attempt had no response", example: "timeout", many: true },
  since: { what: "recorded within this time, or at this time or later", example: "1h" },
  until: { what: "recorded before this time", example: "2026-11-01T10:00" },
};

/** What the words session and trace are in a payload. @type {Record<string, string>} */
const parts = { new: "new", old: "old", session: "session_variables", trace: "trace_context" };
/** @type {Record<string, string>} */
const shorts = { session_variables: "session", trace_context: "trace" };

const uuid = /^[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;
/** KEY=VALUE as the server reads it: a name with a dot, a blank or = stands in double quotes. */
const keyValue = /^(old|new|session_variables|trace_context)((?:\.(?:"(?:[^"]|"")+"|[^."=\s][^.=\s]*))+)=(.*)$/s;
const members = (/** @type {string} */ key) =>
  [...key.matchAll(/\.(?:"((?:[^"]|"")+)"|([^."=\s][^.=\s]*))/gs)].map(([, quoted, bare]) => bare ?? quoted.replaceAll('""', '"'));
const isPath = (/** @type {string} */ text) => /^(\$|strict |lax )/.test(text);

/**
 * @typedef {{from: number, to: number, word: string, value: string, colon: boolean, open: boolean}} Token word is the part before the colon
 * @param {string} text
 * @returns {Token[]}
 */
function tokens(text) {
  /** @type {Token[]} */
  const out = [];
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at])) {
      at++;
      continue;
    }
    const token = { from: at, to: at, word: "", value: "", colon: false, open: false };
    for (; at < text.length && (token.open || !/\s/.test(text[at])); at++) {
      let c = text[at];
      if (c === '"') {
        token.open = !token.open;
        continue;
      }
      if (token.open && c === "\\" && at + 1 < text.length) c = text[++at];
      else if (c === ":" && !token.colon && !token.open) {
        token.colon = true;
        continue;
      }
      if (token.colon) token.value += c;
      else token.word += c;
    }
    token.to = at;
    out.push(token);
  }
  return out;
}

/**
 * Reads a filter. Faults name what is wrong with it, and what to write instead.
 *
 * @param {string} text
 * @param {number} [now]
 * @returns {Parsed}
 */
export function parse(text, now = Date.now()) {
  /** @type {Term[]} */
  const terms = [];
  /** @type {Fault[]} */
  const faults = [];
  for (const token of tokens(text)) {
    const fault = (/** @type {string} */ what) => faults.push({ from: token.from, to: token.to, text: what });
    if (!token.colon && uuid.test(token.word)) {
      terms.push({ word: "id", value: token.word.toLowerCase() });
      continue;
    }
    const name = token.word.split(".")[0].toLowerCase();
    const base = shorts[name] ?? name;
    const known = words[base];
    if (!known) {
      fault(unknown(token));
    } else if (token.open) {
      fault(`the value of ${token.word} has a quote at its beginning and none at its end`);
    } else if (!token.colon) {
      fault(known.path ? `${token.word} needs a value, such as ${base}.id:7` : `${token.word} needs a value, such as ${base}:${known.example}`);
    } else if (known.path !== true && token.word.includes(".")) {
      fault(`${base} has no parts; write ${base}:${known.example}`);
    } else if (known.path && !/^[^.]+(\.[^.]+)+$/.test(token.word)) {
      fault(`${base} needs a key, such as ${base}.id:7`);
    } else {
      const word = known.path ? base + token.word.slice(name.length) : base;
      for (const value of known.many && !known.path && base !== "payload" ? token.value.split(",") : [token.value]) {
        const term = { word, value: normal(base, value) };
        const wrong = check(base, term.value, now);
        if (wrong) fault(wrong);
        else if (!known.many && terms.some((t) => t.word === base)) fault(`${base} can be given once`);
        else if (!terms.some((t) => t.word === word && t.value === term.value)) terms.push(term);
      }
    }
  }
  const data = terms.filter((t) => t.word === "payload" || t.word.includes("."));
  if (data.length > 1 && data.some((t) => t.word === "payload" && isPath(t.value))) {
    faults.push({ from: 0, to: text.length, text: "a JSON path stands alone: write all conditions on the payload into one path" });
  }
  const [since, until] = ["since", "until"].map((word) => terms.find((t) => t.word === word));
  if (since && until && time(since.value, now) >= time(until.value, now)) {
    faults.push({ from: 0, to: text.length, text: `since:${since.value} must be before until:${until.value}` });
  }
  return { terms, faults };
}

/** @param {Token} token */
function unknown({ word, value, colon }) {
  const name = word.split(".")[0].toLowerCase();
  if (!colon) {
    const near = nearest(name, Object.keys(words));
    if (near) return `“${word}” is not a word of filters; did you mean ${near}:${words[near].path ? "" : words[near].example}?`;
    return `“${word}” is not a word of filters; to find it in errors, write error:${quote(word)}`;
  }
  const near = nearest(name, Object.keys(words));
  if (near) return `there is no word “${word}”; did you mean ${near}:${quote(value)}?`;
  return `there is no word “${word}”; write one of ${Object.keys(words).join(", ")}`;
}

/** @param {string} word @param {string} value */
function normal(word, value) {
  if (word === "op") return value.toUpperCase();
  if (word === "state" || word === "kind") return value.toLowerCase().replaceAll("-", "_");
  if (word === "status" || word === "id") return value.toLowerCase();
  return word === "payload" ? value.trim() : value;
}

/** @param {string} word @param {string} value @param {number} now @returns {string} what is wrong; "": nothing */
function check(word, value, now) {
  if (value === "" && !words[word].path) return `${word} needs a value, such as ${word}:${words[word].example}`;
  /** @param {string[]} list */
  const listed = (list) => {
    if (list.includes(value)) return "";
    const near = nearest(value, list);
    return `${word} can't be “${value}”; ${near ? `did you mean ${word}:${near}?` : `write one of ${list.join(", ")}`}`;
  };
  switch (word) {
    case "state":
      return listed(states);
    case "op":
      return listed(ops);
    case "kind":
      return listed(kinds);
    case "status":
      return /^[1-5](\d\d|xx)$/.test(value) ? "" : `status can't be “${value}”; write one such as 503, or 5xx for 500 to 599`;
    case "id":
      return uuid.test(value) ? "" : `id can't be “${value}”; write the whole id, such as ${words.id.example}`;
    case "since":
    case "until":
      return Number.isNaN(time(value, now)) ? `${word} can't be “${value}”; write 30m, 1h, 7d, 14:02, 2026-11-01 or 2026-11-01T10:00` : "";
    case "payload":
      return isPath(value) || keyValue.test(value) ? "" : `payload can't be “${value}”; write new.id:7, or a JSON path such as payload:"$.new.amount ? (@ > 100)"`;
  }
  return "";
}

const units = /** @type {Record<string, number>} */ ({ s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 });

/**
 * A point in time, in ms: so long ago (1h30m), a clock time (14:02), or a date and time. A time
 * without a zone is the browser's, as all times on the page are. NaN: it is none.
 *
 * @param {string} text
 * @param {number} now
 */
export function time(text, now) {
  if (/^(\d+[smhdw])+$/.test(text)) return [...text.matchAll(/(\d+)([smhdw])/g)].reduce((at, [, n, unit]) => at - Number(n) * units[unit], now);
  const clock = /^(\d{1,2}):(\d\d)(?::(\d\d))?$/.exec(text);
  if (clock) {
    const [h, m, s] = clock.slice(1).map((part) => Number(part ?? 0));
    if (h > 23 || m > 59 || s > 59) return NaN;
    const at = new Date(now);
    at.setHours(h, m, s, 0);
    if (at.getTime() > now) at.setDate(at.getDate() - 1); // the last time that it was so
    return at.getTime();
  }
  const m = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?)?$/i.exec(text);
  if (!m) return NaN;
  const zone = (m[3] ?? "").toUpperCase().replace("UTC", "Z").replace(/^([+-]\d\d):?(\d\d)?$/, (_, h, min) => `${h}:${min ?? "00"}`);
  // JavaScript reads February 30 as March 2.
  const day = new Date(`${m[1]}T00:00Z`);
  if (Number.isNaN(day.getTime()) || day.toISOString().slice(0, 10) !== m[1]) return NaN;
  return Date.parse(`${m[1]}T${m[2] ?? "00:00"}${zone}`);
}

/**
 * The parameters of /api/v1/events for terms without faults.
 *
 * @param {Term[]} terms
 * @param {number} [now]
 * @returns {Query}
 */
export function toQuery(terms, now = Date.now()) {
  /** @type {any} */
  const query = {};
  /** @type {{path: string[], value: string}[]} */
  const data = [];
  for (const { word, value } of terms) {
    if (word.includes(".")) {
      const [base, ...keys] = word.split(".");
      data.push({ path: [parts[base], ...keys], value });
    } else if (word === "payload") {
      const m = keyValue.exec(value);
      if (m) data.push({ path: [m[1], ...members(m[2])], value: m[3] });
      else query.payload = value;
    } else if (word === "since" || word === "until") {
      query[word] = new Date(time(value, now)).toISOString();
    } else if (words[word].many) {
      query[word] = [...(query[word] ?? []), value];
    } else {
      query[word] = value;
    }
  }
  if (data.length === 1 && data[0].path.every((key) => /^[^."=\s][^.=\s]*$/.test(key)) && !/\n/.test(data[0].value)) {
    query.payload = `${data[0].path.join(".")}=${data[0].value}`;
  } else if (data.length) {
    query.payload = `$ ? (${data.map(condition).join(" && ")})`;
  }
  return query;
}

/**
 * One condition of a JSON path. A value that is a JSON number, true, false or null matches that and
 * the string, as KEY=VALUE does.
 *
 * @param {{path: string[], value: string}} term
 */
function condition({ path: [part, ...keys], value }) {
  const at = `@.${part}${keys.map((key) => `.${JSON.stringify(key)}`).join("")}`;
  return `exists(${at} ? (@ == ${JSON.stringify(value)}${/^(-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null)$/.test(value) ? ` || @ == ${value}` : ""}))`;
}

const string = String.raw`"(?:[^"\\]|\\.)*"`;
const conditioned = new RegExp(String.raw`exists\(@\.(\w+)((?:\.${string})+) \? \(@ == (${string})(?: \|\| @ == [\w.+-]+)?\)\)`, "g");

/**
 * The body's filter of redeliver and discard.
 *
 * @param {Query} query
 */
export function toFilter({ id, trigger, state, op, status, kind, ...rest }) {
  /** @type {any} */
  const filter = { ids: id, triggers: trigger, states: state, ops: op, statuses: status, kinds: kind, ...rest };
  for (const [key, value] of Object.entries(filter)) if (value === undefined) delete filter[key];
  return filter;
}

/**
 * The query of such a filter.
 *
 * @param {any} filter
 * @returns {Query}
 */
export function ofFilter({ ids, triggers, states, ops, statuses, kinds, ...rest }) {
  /** @type {any} */
  const query = { id: ids, trigger: triggers, state: states, op: ops, status: statuses, kind: kinds, ...rest };
  for (const [key, value] of Object.entries(query)) if (value === undefined) delete query[key];
  return query;
}

/** A value as it is written in a filter. @param {string} value */
export const quote = (value) => (value === "" || /[\s"\\]/.test(value) ? `"${value.replace(/["\\]/g, "\\$&")}"` : value);

/** The words of terms. @param {Term[]} terms */
export const write = (terms) => terms.map(({ word, value }) => `${word}:${quote(value)}`).join(" ");

/**
 * The words of a query. A time is an absolute one then.
 *
 * @param {Query} query
 */
export function fromQuery(query) {
  /** @type {Term[]} */
  const terms = [];
  for (const word of Object.keys(words)) {
    const value = /** @type {any} */ (query)[word];
    if (value === undefined || value === null || value === "") continue;
    if (word !== "payload") {
      for (const v of Array.isArray(value) ? value : [value]) terms.push({ word, value: v });
      continue;
    }
    const m = keyValue.exec(value);
    const found = [...value.matchAll(conditioned)];
    if (m && !m[2].includes('"')) {
      terms.push({ word: (shorts[m[1]] ?? m[1]) + m[2], value: m[3] });
    } else if (found.length && value === `$ ? (${found.map((f) => f[0]).join(" && ")})`) {
      for (const [, part, keys, v] of found) {
        const path = [...keys.matchAll(new RegExp(string, "g"))].map(([key]) => JSON.parse(key)).join(".");
        terms.push({ word: `${shorts[part] ?? part}.${path}`, value: JSON.parse(v) });
      }
    } else {
      terms.push({ word, value });
    }
  }
  return write(terms);
}

/**
 * The nearest of a list, if it is near: by how many letters are missing, wrong, too many or swapped.
 *
 * @param {string} text
 * @param {string[]} list
 */
export function nearest(text, list) {
  const small = text.toLowerCase();
  const scored = list.map((word) => ({ word, distance: word.toLowerCase().startsWith(small) && small ? 0.5 : distance(small, word.toLowerCase()) }));
  scored.sort((a, b) => a.distance - b.distance);
  return scored.length && scored[0].distance <= Math.max(1, Math.floor(Math.max(small.length, 3) / 2.5)) ? scored[0].word : "";
}

/** @param {string} a @param {string} b */
function distance(a, b) {
  if (Math.abs(a.length - b.length) > 3) return 9;
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, rows[i - 2][j - 2] + 1);
      rows[i].push(least);
    }
  }
  return rows[a.length][b.length];
}

/**
 * What may stand at the caret.
 *
 * @param {string} text
 * @param {number} caret
 * @param {{triggers?: string[], tables?: string[], data?: boolean}} known data: the token shows the data of rows
 * @returns {{from: number, to: number, options: {insert: string, show: string, hint: string}[]}} insert replaces the text from from to to
 */
export function complete(text, caret, { triggers = [], tables = [], data = true }) {
  const token = tokens(text).find((t) => t.from < caret && caret <= t.to);
  const typed = token ? text.slice(token.from, caret) : "";
  const colon = typed.indexOf(":");
  const [from, to] = token ? [token.from, token.to] : [caret, caret];
  if (colon < 0) {
    const small = typed.replaceAll('"', "").toLowerCase();
    const options = Object.entries(words).filter(([word, w]) => word.startsWith(small) && (data || !w.data)).map(([word, w]) => {
      const show = w.path ? `${word}.` : `${word}:`;
      return { insert: show, show, hint: w.what };
    });
    return { from, to, options: small.includes(".") ? [] : options };
  }
  const word = typed.slice(0, colon);
  /** @type {Record<string, string[]>} */
  const lists = {
    state: states, op: ops.map((op) => op.toLowerCase()), kind: kinds, trigger: triggers, table: tables, status: ["5xx", "4xx", "404", "429", "500", "503"],
    since: ["15m", "1h", "24h", "7d"], until: ["15m", "1h", "24h", "7d"],
  };
  const list = lists[word] ?? [];
  const many = words[word]?.many && word !== "id";
  const value = typed.slice(colon + 1).replaceAll('"', "");
  const start = many ? value.lastIndexOf(",") + 1 : 0;
  const small = value.slice(start).toLowerCase();
  const taken = value.slice(0, start).split(",");
  const rank = (/** @type {string} */ v) => (v.toLowerCase().startsWith(small) ? 0 : v.toLowerCase().includes(small) ? 1 : 2);
  const options = list.filter((v) => rank(v) < 2 && !taken.includes(v)).sort((a, b) => rank(a) - rank(b)).slice(0, 50)
    .map((v) => ({ insert: `${word}:${quote(value.slice(0, start) + v)} `, show: v, hint: word === "since" || word === "until" ? "ago" : "" }));
  return { from, to: text[to] === " " ? to + 1 : to, options };
}
