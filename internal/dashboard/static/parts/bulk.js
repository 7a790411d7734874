// Changes of many events: counted first, asked, and carried out as an operation of the server, which
// shows how far it is and can be canceled.

import { get, may, post, Problem, remove } from "../lib/api.js";
import { fromQuery, ofFilter } from "../lib/filter.js";
import { count, plural } from "../lib/format.js";
import { html, signal } from "../lib/html.js";
import { refresh } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { ask } from "./dialog.js";
import { say, sayProblem } from "./say.js";

/**
 * @typedef {{ids?: string[], triggers?: string[], states?: string[], ops?: string[], table?: string, since?: string, until?: string,
 *   payload?: string, error?: string, statuses?: string[], kinds?: string[]}} Filter as the interface has it
 */

/**
 * What runs: what it is, how far it is (max is undefined if the end is not known), and how to end it.
 *
 * @typedef {{id: string, text: string, value?: number, max?: number, cancel?: () => void}} Run
 * @type {import("../vendor/signals-core.js").Signal<Run[]>}
 */
const running = signal([]);

/** Shows something that runs, or how far it is by now. @param {Run} run */
export const show = (run) => (running.value = running.value.some((r) => r.id === run.id) ? running.value.map((r) => (r.id === run.id ? run : r)) : [...running.value, run]);
/** @param {string} id */
export const hide = (id) => (running.value = running.value.filter((r) => r.id !== id));

const verbs = {
  redeliver: { yes: "Redeliver", does: "sent again", danger: false, body: "They are due at once, with new attempts. Their receivers must take an event twice." },
  discard: { yes: "Discard", does: "discarded", danger: true, body: "They are deleted for good, and never sent." },
};

/** Why an event was left as it is. @type {Record<string, string>} */
const reasons = {
  busy: "in flight just now", waiting: "waiting to be sent anyway", removed: "of a trigger that was removed", delivered: "delivered already", gone: "changed meanwhile",
  damaged: "with data that can't be read", erased: "whose data were erased", not_found: "no longer there",
};

/**
 * Asks and does it. Resolves when it has ended; true: it was carried out.
 *
 * @param {"redeliver" | "discard"} kind
 * @param {Filter} filter
 * @param {string} words what the filter chooses, such as "the dead letters of x"
 * @returns {Promise<boolean>}
 */
export async function bulk(kind, filter, words) {
  const verb = verbs[kind];
  try {
    // Ids are counted here: a request for thousands would be too long for many proxies.
    const byId = filter.ids && Object.keys(filter).length === 1;
    const { events, more } = byId ? { events: filter.ids?.length ?? 0, more: false } : await get("events/count", ofFilter(filter));
    if (events === 0 && !more) {
      say(`There is nothing to ${kind}: no event is one of ${words}`);
      return false;
    }
    const many = `${more ? "more than " : ""}${plural(events, "event")}`;
    const body = html`<p>These are ${visible(words)}.</p>${!byId && html`<p><code class="wrapped">${visible(fromQuery(ofFilter(filter)))}</code></p>`}
      <p>${more && "There was no time to count all of them. "}${verb.body}</p>`;
    if (!(await ask({ title: `${verb.yes} ${many}?`, yes: `${verb.yes} ${many}`, danger: verb.danger, body }))) return false;
    return await follow(await post(`events/${kind}`, { filter }, { wait: 0 }), verb.does, events, more);
  } catch (e) {
    sayProblem(e);
    return false;
  }
}

/**
 * Shows an operation until it has ended.
 *
 * @param {any} operation
 * @param {string} does
 * @param {number} expected
 * @param {boolean} more
 */
async function follow(operation, does, expected, more) {
  const { id } = operation;
  const cancel = may("cancel_operation") ? () => void remove(`operations/${id}`).catch(sayProblem) : undefined;
  try {
    for (let wait = 100; operation.state === "running"; wait = Math.min(2 * wait, 1000)) {
      const text = `${count(operation.done)} of ${more ? "more than " : ""}${count(expected)} looked at, to be ${does}`;
      show({ id, text, value: more ? undefined : operation.done, max: more ? undefined : Math.max(expected, operation.done, 1), cancel });
      await new Promise((resolve) => setTimeout(resolve, wait));
      operation = await look(operation);
    }
  } finally {
    hide(id);
  }
  const { changed = 0, skipped = {} } = operation.result ?? {};
  const left = Object.entries(skipped).map(([why, n]) => `${count(Number(n))} left as ${Number(n) === 1 ? "it is" : "they are"}: ${reasons[why] ?? why}`);
  const said = [`${plural(changed, "event")} ${changed === 1 ? "is" : "are"} ${does}`, ...left].join("; ");
  if (operation.state === "failed") sayProblem({ detail: `${operation.problem?.detail ?? "it has failed"} (${said})`, remedy: operation.problem?.remedy });
  else say(operation.state === "canceled" ? `Canceled. ${said}` : said);
  await refresh().catch(() => {}); // the next status tells
  return operation.state === "done";
}

/** The present state of an operation; the last known one while the server does not answer. @param {any} operation */
async function look(operation) {
  try {
    return await get(`operations/${operation.id}`);
  } catch (e) {
    if (!(e instanceof Problem)) throw e;
    if (e.status === 0 || e.status >= 500) return operation;
    if (e.status !== 404) throw e;
    throw new Problem({
      status: 404, code: "lost", detail: "the server no longer knows how far it is: it was restarted, or another one answers now",
      remedy: "what was done stays done. Count again, and repeat it for the rest",
    });
  }
}

/** Shows what runs, over the foot of the page. */
export function Running() {
  return running.value.map((r) => html`<p class="running" key=${r.id}><span>${r.text}</span>
    <progress max=${r.max} value=${r.value} aria-label=${r.text}></progress>${r.cancel && html`<button onClick=${r.cancel}>Cancel</button>`}</p>`);
}
