// Questions: each names what will happen, and waits for an answer. The browser's own <dialog> keeps
// the focus inside, closes by Escape, and gives the focus back. Where something can't be undone, the
// focus is on Cancel first.

import { html, signal, useLayoutEffect, useRef, useState } from "../lib/html.js";

/**
 * @typedef {{
 *   title: string,
 *   body?: any,
 *   fields?: {name: string, label: string, value?: string, hint?: string, required?: boolean, rows?: number, options?: [string, string][]}[],
 *   yes: string,
 *   danger?: boolean,
 *   done: (answer: Record<string, string> | null) => void,
 * }} Question
 */

/** @type {import("../vendor/signals-core.js").Signal<Question | null>} */
const asked = signal(null);

/**
 * Asks, and returns the fields' values; null: no.
 *
 * @param {Omit<Question, "done">} question
 * @returns {Promise<Record<string, string> | null>}
 */
export function ask(question) {
  return new Promise((done) => (asked.value = { ...question, done }));
}

/** Shows the question, if one is asked. */
export function Asked() {
  const question = asked.value;
  return question && html`<${Dialog} key=${question.title} question=${question} />`;
}

/** @param {{question: Question}} props */
function Dialog({ question }) {
  const element = useRef(/** @type {any} */ (null));
  const [values, setValues] = useState(/** @type {Record<string, string>} */ (Object.fromEntries((question.fields ?? []).map((f) => [f.name, f.value ?? ""]))));
  useLayoutEffect(() => element.current.showModal(), []);
  const answer = (/** @type {Record<string, string> | null} */ with_) => {
    element.current.close();
    asked.value = null;
    question.done(with_);
  };
  const onSubmit = (/** @type {Event} */ e) => {
    e.preventDefault();
    answer(values);
  };
  return html`<dialog ref=${element} aria-labelledby="asked" onCancel=${(/** @type {Event} */ e) => {
    e.preventDefault();
    answer(null);
  }}>
    <form onSubmit=${onSubmit}>
      <h2 id="asked">${question.title}</h2>
      ${question.body && html`<div class="text">${question.body}</div>`}
      ${(question.fields ?? []).map((f) => html`<label key=${f.name}>${f.label}
        ${f.hint && html`<span class="sub">${f.hint}</span>`}
        ${f.options ? html`<select value=${values[f.name]} onChange=${(/** @type {any} */ e) => setValues((v) => ({ ...v, [f.name]: e.target.value }))}>
          ${f.options.map(([value, word]) => html`<option key=${value} value=${value}>${word}</option>`)}</select>` : html`<${f.rows ? "textarea" : "input"} rows=${f.rows} required=${f.required} value=${values[f.name]} autocomplete="off" spellcheck="false"
          onInput=${(/** @type {any} */ e) => setValues((v) => ({ ...v, [f.name]: e.target.value }))} />`}
      </label>`)}
      <p class="do"><button type="submit" class=${question.danger ? "danger" : "main"}>${question.yes}</button>
        <button type="button" autofocus=${question.danger} onClick=${() => answer(null)}>Cancel</button></p>
    </form>
  </dialog>`;
}
