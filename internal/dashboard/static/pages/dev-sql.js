// SQL on the private database of rowhook dev: a box, and what came of it.

import { may, post } from "../lib/api.js";
import { around, indexOf, isNumber, select } from "../lib/dev.js";
import { count, latency, plural } from "../lib/format.js";
import { html, signal, useRef } from "../lib/html.js";
import { visible } from "../lib/visible.js";
import { Text } from "../parts/json.js";
import { Failed, Light, NeedsToken } from "../parts/parts.js";

/** A row of the sample. */
export const example = "insert into orders (customer, amount) values ('Ada', 12.50);";

/** What is in the box. It stays while other pages are looked at, and so does what came of it. */
export const draft = signal("");
/** @type {import("../vendor/signals-core.js").Signal<{sql: string, answer: any, problem: any} | null>} */
const outcome = signal(null);
const running = signal(false);

// What was run is kept for this tab, as the token is.
const kept = "rowhook.sql";
const mostKept = 50;
/** @type {string[]} the newest last */
let past = [];
try {
  past = JSON.parse(sessionStorage.getItem(kept) ?? "[]");
} catch {
  // somebody else's; it is written anew
}
let at = past.length; // what of it is in the box; its length: a new one
let unsent = ""; // the new one, while an old one is in the box

/** @param {string} sql */
function remember(sql) {
  past = [...past.filter((p) => p !== sql), sql].slice(-mostKept);
  at = past.length;
  try {
    sessionStorage.setItem(kept, JSON.stringify(past));
  } catch {
    // there is no room: it is kept until the page is loaded anew
  }
}

/** @param {-1 | 1} step */
function recall(step) {
  const to = at + step;
  if (to < 0 || to > past.length) return;
  if (at === past.length) unsent = draft.value;
  at = to;
  draft.value = at === past.length ? unsent : past[at];
}

async function run() {
  const sql = draft.value;
  if (!sql.trim() || running.value) return;
  remember(sql);
  running.value = true;
  try {
    outcome.value = { sql, answer: await post("dev/sql", { sql }), problem: null };
  } catch (e) {
    outcome.value = { sql, answer: null, problem: e };
  }
  running.value = false;
}

/** @param {{about: any}} props */
export function SQL({ about }) {
  const box = useRef(/** @type {any} */ (null));
  if (!may("dev")) return html`<section><h2>SQL</h2><${NeedsToken} what="SQL on the private database is not open to every program of this host." /></section>`;
  const onKey = (/** @type {KeyboardEvent} */ e) => {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) void run();
    else if (e.altKey && (e.key === "ArrowUp" || e.key === "ArrowDown")) recall(e.key === "ArrowUp" ? -1 : 1);
    else return;
    e.preventDefault();
  };
  return html`<section><label class="head" for="sql"><h2>SQL</h2><span class="sub">as rowhook_dev, which is no superuser</span></label>
    <textarea id="sql" ref=${box} rows="6" spellcheck="false" autocapitalize="off" autocomplete="off" aria-describedby="sqlkeys" placeholder=${about.config === null ? example : `select * from ${about.triggers[0]?.table ?? "pg_tables"};`} value=${draft.value} onKeyDown=${onKey}
      onInput=${(/** @type {any} */ e) => (draft.value = e.target.value)}></textarea>
    <div class="do fold"><button class="main" disabled=${!draft.value.trim() || running.value} onClick=${run}>Run</button>
      ${running.value && html`<span role="status">Running, for 10 s at most…</span>`}
      <span class="sub" id="sqlkeys"><kbd>Ctrl</kbd> <kbd>Enter</kbd> runs it; <kbd>Alt</kbd> <kbd>↑</kbd> <kbd>↓</kbd> bring back what you ran. Several statements are one transaction; the first 1,000 rows are shown.</span></div>
    ${outcome.value && html`<${Outcome} ...${outcome.value} box=${box} />`}</section>`;
}

/** @param {{sql: string, answer: any, problem: any, box: {current: any}}} props */
function Outcome({ sql, answer, problem, box }) {
  if (problem) return html`<${Failed} problem=${problem} />`;
  const { error } = answer;
  const words = error ? "an error" : answer.results.length === 1 ? visible(answer.results[0].tag) : plural(answer.results.length, "statement");
  return html`<div class="outcome"><p role="status"><${Light} kind=${error ? "bad" : "ok"}>${words}, ${latency(answer.duration_ms)}<//>${answer.rolled_back && " It left a transaction open, which was rolled back: end it with commit."}</p>
    ${answer.notices.length > 0 && html`<ul class="plainlist" aria-label="Notices">${answer.notices.map((/** @type {string} */ n, /** @type {number} */ i) => html`<li key=${i}>${visible(n)}</li>`)}</ul>`}
    ${answer.results.map((/** @type {any} */ r, /** @type {number} */ i) => (r.columns.length ? html`<${Result} key=${i} r=${r} n=${i} />` : answer.results.length > 1 && html`<p key=${i} class="mono">${visible(r.tag)}</p>`))}
    ${error && html`<${SQLError} sql=${sql} error=${error} undone=${answer.results.length > 0 && !/\b(commit|end)\b/i.test(sql)} box=${box} />`}</div>`;
}

/** @param {{sql: string, error: any, undone: boolean, box: {current: any}}} props */
function SQLError({ sql, error, undone, box }) {
  const index = error.position ? indexOf(sql, error.position) : 0;
  const where = error.position ? around(sql, index) : null;
  const go = () => {
    draft.value = sql;
    setTimeout(() => select(box.current, index, index + (where?.word.length ?? 0))); // once the box has the text
  };
  return html`<div class="note" role="alert"><strong>${visible(error.message)}</strong>${error.code && html`<span class="mono">${visible(error.code)}</span>`}
    ${error.detail && html`<p>${visible(error.detail)}</p>`}${error.hint && html`<p><b>Hint:</b> ${visible(error.hint)}</p>`}
    ${where && html`<p><code class="wrapped">${visible(where.before.slice(-60))}<mark>${visible(where.word) || "⏎"}</mark>${visible(where.after.slice(0, 60))}</code></p>
      <p><button onClick=${go}>Go to line ${where.line}, column ${where.column}</button></p>`}
    ${undone && html`<p>What the statements before it did is undone.</p>`}</div>`;
}

/** @param {{r: any, n: number}} props */
function Result({ r, n }) {
  const numeric = r.columns.map((/** @type {any} */ c) => isNumber(c.type));
  return html`<h3 id="result${n}">${visible(r.tag)}${r.truncated && html`: the first ${count(r.rows.length)} rows${r.rows.length < 1000 ? ", since there is more than 4 MiB" : ""}`}</h3>
    <div class="scroll" tabindex="0" role="region" aria-labelledby="result${n}"><table class="result">
    <thead><tr>${r.columns.map((/** @type {any} */ c, /** @type {number} */ i) => html`<th key=${i} scope="col" class=${numeric[i] ? "n" : undefined}><span class="name">${visible(c.name)}</span><span class="sub">${visible(c.type)}</span></th>`)}</tr></thead>
    <tbody>${r.rows.length === 0 && html`<tr><td class="z" colspan=${r.columns.length}>no rows</td></tr>`}
      ${r.rows.map((/** @type {any[]} */ row, /** @type {number} */ i) => html`<tr key=${i}>${row.map((v, j) => html`<td key=${j} class=${numeric[j] ? "n" : undefined}>${value(v)}</td>`)}</tr>`)}</tbody></table></div>`;
}

/** @param {string | null} v */
function value(v) {
  if (v === null) return html`<i class="z">null</i>`;
  if (v === "") return html`<i class="z">empty text</i>`;
  return v.length > 200 || v.includes("\n") ? html`<${Text} value=${v} what="the value" />` : visible(v);
}
