// rowhook.yaml of rowhook dev: an editor, what is wrong with the text, what an apply would change, and
// the apply.

import { get, may, post } from "../lib/api.js";
import { indexOfLine, select } from "../lib/dev.js";
import { plural } from "../lib/format.js";
import { html, signal, useEffect, useRef } from "../lib/html.js";
import { stringify } from "../lib/json.js";
import { useLoad } from "../lib/load.js";
import { visible } from "../lib/visible.js";
import { Text } from "../parts/json.js";
import { Failed, Light, Loading, NeedsToken } from "../parts/parts.js";

const pause = 400; // ms after the last key, before a text is checked
const lookEvery = 5000; // ms between two looks at the file, and between two checks of a text

/** The file as it is, with its problems and its plan; null: not known yet. */
const file = signal(/** @type {any} */ (null));
/** What somebody has written on top of it, and is not applied; it stays while other pages are looked at. */
const draft = signal(/** @type {{text: string, etag: string} | null} */ (null));
/** What is to be said of the draft. text is the one that was checked. */
const checked = signal(/** @type {any} */ (null));
/** What came of the last apply. */
const outcome = signal(/** @type {{plan: any} | {problem: any} | {problems: any[]} | null} */ (null));
const busy = signal(false);

/** @param {{applied: () => void}} props */
export function Configuration({ applied }) {
  if (!may("dev")) return html`<section><h2>Configuration</h2><${NeedsToken} what="The configuration is neither shown nor changed without it." /></section>`;
  return html`<${Editor} applied=${applied} />`;
}

/** @param {{applied: () => void}} props */
function Editor({ applied }) {
  const area = useRef(/** @type {any} */ (null));
  const { problem, again } = useLoad(async (abort) => (file.value = await get("dev/config", {}, abort)), [], lookEvery);
  useEffect(() => {
    const text = draft.value?.text;
    if (text === undefined) return;
    const abort = new AbortController();
    const check = async () => {
      try {
        checked.value = await post("dev/config", { text }, { method: "PUT", abort: abort.signal });
      } catch (e) {
        if (!abort.signal.aborted) checked.value = { text, failed: e };
      }
      if (!abort.signal.aborted) timer = setTimeout(check, lookEvery); // tables may have been made meanwhile
    };
    let timer = setTimeout(check, pause);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [draft.value?.text]);
  const f = file.value;
  if (!f) return html`<section><h2>Configuration</h2>${problem ? html`<${Failed} problem=${problem} again=${again} />` : html`<${Loading} what="the configuration" />`}</section>`;
  const d = draft.value;
  const text = d?.text ?? f.text ?? "";
  const write = (/** @type {string} */ to) => {
    outcome.value = null;
    draft.value = to === f.text ? null : { text: to, etag: d?.etag ?? f.etag };
  };
  const judged = d === null ? f : checked.value?.text === text ? checked.value : null;
  const moved = d !== null && d.etag !== f.etag;
  const ready = judged?.plan && !busy.value && !moved && f.text !== null && (d !== null || judged.plan.changes.length > 0);
  const apply = async () => {
    if (!ready) return;
    busy.value = true;
    try {
      const a = await post("dev/config", { text, etag: d?.etag ?? f.etag, apply: true }, { method: "PUT" });
      if (a.applied) {
        outcome.value = { plan: a.plan };
        file.value = { ...a, plan: { ...a.plan, changes: [] } };
        draft.value = null;
        applied();
      } else {
        checked.value = a;
        outcome.value = { problems: d ? [] : a.problems }; // those of a draft stand above
      }
    } catch (e) {
      outcome.value = { problem: e };
    }
    busy.value = false;
    again();
  };
  return html`<section><label for="config"><h2>Configuration</h2><span class="sub">${f.read_only ? `It can't be changed here: ${visible(f.read_only)}.` : visible(f.path)}</span></label>
    ${f.text !== null && html`<${Area} area=${area} text=${text} write=${write} apply=${apply} wrong=${judged?.problems?.length > 0} />
      ${moved && html`<${Moved} f=${f} text=${text} />`}
      <div class="do fold"><button class="main" disabled=${!ready} onClick=${apply}>Apply</button>
        ${d && html`<button onClick=${() => (draft.value = null)}>Undo my changes</button>`}
        <span class="sub" id="configkeys"><kbd>Ctrl</kbd> <kbd>Enter</kbd> applies. <kbd>Tab</kbd> indents; <kbd>Esc</kbd> and then <kbd>Tab</kbd> leaves.</span></div>`}
    <div role="status" class="judged"><${Judged} judged=${judged} changed=${d !== null} text=${text} area=${f.text !== null && area} /></div>
    ${outcome.value && html`<${Outcome} outcome=${outcome.value} text=${text} area=${f.text !== null && area} />`}</section>`;
}

/** @param {{area: {current: any}, text: string, write: (text: string) => void, apply: () => void, wrong: boolean}} props */
function Area({ area, text, write, apply, wrong }) {
  const leaves = useRef(false); // Escape was pressed: Tab goes on to the next button
  const insert = (/** @type {string} */ what) => document.execCommand("insertText", false, what); // unlike other ways, it can be undone
  const onKey = (/** @type {KeyboardEvent} */ e) => {
    const { selectionStart: at, value } = area.current;
    const line = value.slice(value.lastIndexOf("\n", at - 1) + 1, at);
    const free = !e.ctrlKey && !e.altKey && !e.metaKey && !e.shiftKey;
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) apply();
    else if (e.key === "Escape") leaves.current = true;
    else if (e.key === "Tab" && free && !leaves.current) insert(line.length % 2 ? " " : "  ");
    else if (e.key === "Enter" && free) insert(`\n${/^ */.exec(line)?.[0]}`);
    else {
      if (!["Tab", "Shift"].includes(e.key)) leaves.current = false;
      return;
    }
    e.preventDefault();
  };
  return html`<textarea id="config" ref=${area} rows=${Math.min(28, Math.max(8, text.split("\n").length + 1))} wrap="off" spellcheck="false" autocapitalize="off" autocomplete="off"
    aria-invalid=${wrong} aria-describedby="configkeys" value=${text} onKeyDown=${onKey} onBlur=${() => (leaves.current = false)} onInput=${(/** @type {any} */ e) => write(e.target.value)}></textarea>`;
}

/** The file is another one than the text was written on. @param {{f: any, text: string}} props */
function Moved({ f, text }) {
  return html`<div class="note w" role="alert"><strong class="s wait">The file has changed since you read it</strong><span class="do"><button onClick=${() => (draft.value = null)}>Drop mine, take the file's</button>
      <button onClick=${() => (draft.value = { text, etag: f.etag })}>Keep mine</button></span>
    <p>Your text is not applied. After "Keep mine", an apply replaces what the file has now.</p></div>
    <details class="attempt"><summary>What the file has now</summary><${Text} value=${f.text} what="the file" /></details>`;
}

/** @param {{judged: any, changed: boolean, text: string, area: {current: any} | false}} props area: where the text can be edited */
function Judged({ judged, changed, text, area }) {
  if (!judged) return html`<p class="sub">Checking it…</p>`;
  if (judged.failed) return html`<${Failed} problem=${judged.failed} />`;
  const n = judged.problems.length;
  const list = (/** @type {any[]} */ all) => html`<${Problems} all=${all} text=${text} area=${area} />`;
  return html`${n > 0 && html`<p><${Light} kind="bad">${n === 1 ? "A problem keeps" : `${plural(n, "problem")} keep`} it from being applied<//></p>${list(judged.problems)}`}
    ${judged.warnings.length > 0 && html`<p><${Light} kind="wait">${plural(judged.warnings.length, "warning")}<//></p>${list(judged.warnings)}`}
    ${judged.plan && (judged.plan.changes.length ? html`<p>An apply would change:</p><${Plan} plan=${judged.plan} />`
      : html`<p><${Light} kind="ok">${changed ? "This text means what is applied already" : "This is applied"}<//></p>`)}`;
}

/** @param {{all: any[], text: string, area: {current: any} | false}} props */
function Problems({ all, text, area }) {
  return html`<ul class="plainlist">${all.map((p, i) => html`<li key=${i}>${p.line > 0 && (area ? html`<button class="quiet link" onClick=${() => select(area.current, indexOfLine(text, p.line, p.column), indexOfLine(text, p.line, Infinity))}>Line ${p.line}, column ${p.column}</button> ` : `${visible(p.file)}:${p.line}: `)}${visible(p.message)}${p.key && html` <span class="z mono">${visible(p.key)}</span>`}</li>`)}</ul>`;
}

/** @type {Record<string, string>} */
const signs = { create: "+", change: "~", remove: "−" };

/** @param {{plan: any}} props */
function Plan({ plan }) {
  const code = (/** @type {any} */ v) => (v === undefined ? "not set" : html`<code class="wrapped">${visible(stringify(v, 0))}</code>`);
  return html`<ul class="plainlist">${plan.changes.map((/** @type {any} */ c, /** @type {number} */ i) => html`<li key=${i}><span class="mono" aria-hidden="true">${signs[c.action]} </span>${c.action} ${c.object.replaceAll("_", " ")} <b>${visible(c.name)}</b>
    ${c.table && ` on ${visible(c.table)}`} <span class="z">${visible(c.detail)}</span>${c.waiting_events > 0 && html` <${Light} kind="wait">${plural(c.waiting_events, "event waits", "events wait")}<//>`}
    <ul class="plainlist">${c.differences.map((/** @type {any} */ x) => html`<li key=${x.key}><span class="mono">${visible(x.key)}</span>: ${x.secret ? "the secret" : html`${code(x.old)} → ${code(x.new)}`}</li>`)}</ul></li>`)}</ul>`;
}

/** @param {{outcome: any, text: string, area: {current: any} | false}} props */
function Outcome({ outcome: o, text, area }) {
  if (o.problem) return html`<${Failed} problem=${o.problem} />`;
  if (o.problems) return html`<p role="alert"><${Light} kind="bad">It was not applied, and the file is as it was<//></p><${Problems} all=${o.problems} text=${text} area=${area} />`;
  return html`<p role="status"><${Light} kind="ok">Applied. It is in the file, and has changed ${o.plan.changes.length ? "this:" : "nothing else."}<//></p><${Plan} plan=${o.plan} />`;
}
