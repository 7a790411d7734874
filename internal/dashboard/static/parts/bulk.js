// Changes of many events: counted first, asked, and carried out as an operation of the server, which
// shows how far it is and can be canceled.

import { get, post, remove } from "../lib/api.js";
import { count, plural } from "../lib/format.js";
import { html, signal } from "../lib/html.js";
import { refresh } from "../lib/status.js";
import { ask } from "./dialog.js";
import { say, sayProblem } from "./say.js";

/**
 * @typedef {{ids?: string[], triggers?: string[], states?: string[], table?: string, since?: string, until?: string,
 *   payload?: string, error?: string, statuses?: string[], kinds?: string[]}} Filter as the interface has it
 */

/** What runs. @type {import("../vendor/signals-core.js").Signal<any[]>} */
const running = signal([]);

const verbs = {
  redeliver: { yes: "Redeliver", does: "sent again", danger: false, body: "They are sent again, each with its own attempts." },
  discard: { yes: "Discard", does: "discarded", danger: true, body: "They are deleted for good, and never sent." },
};

/** The query of a filter. @param {Filter} f */
const query = (f) => ({
  id: f.ids, trigger: f.triggers, state: f.states, table: f.table, since: f.since, until: f.until, payload: f.payload, error: f.error, status: f.statuses, kind: f.kinds,
});

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
    const { events, more } = await get("events/count", query(filter));
    if (events === 0 && !more) {
      say(`There is nothing to ${kind}: no event is one of ${words}`);
      return false;
    }
    const many = `${more ? "more than " : ""}${plural(events, "event")}`;
    if (!(await ask({ title: `${verb.yes} ${many}?`, yes: `${verb.yes} ${many}`, danger: verb.danger, body: html`<p>These are ${words}. ${verb.body}</p>` }))) return false;
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
  while (operation.state === "running") {
    running.value = [...running.value.filter((o) => o.id !== operation.id), { ...operation, does, expected, more }];
    await new Promise((resolve) => setTimeout(resolve, 500));
    operation = await get(`operations/${operation.id}`);
  }
  running.value = running.value.filter((o) => o.id !== operation.id);
  const { changed = 0, skipped = {} } = operation.result ?? {};
  const left = Object.entries(skipped).map(([why, n]) => `${count(Number(n))} skipped: ${why.replace("_", " ")}`);
  const said = [`${plural(changed, "event")} ${changed === 1 ? "is" : "are"} ${does}`, ...left].join("; ");
  if (operation.state === "failed") sayProblem(operation.problem ?? { detail: "it has failed" });
  else say(operation.state === "canceled" ? `Canceled. ${said}` : said);
  await refresh();
  return operation.state === "done";
}

/** Shows what runs, over the foot of the page. */
export function Running() {
  return running.value.map((o) => html`<p class="running" role="status" key=${o.id}><span>${count(o.done)} of ${o.more ? "more than " : ""}${count(o.expected)} ${o.does}</span>
    <progress max=${o.more ? undefined : Math.max(o.expected, o.done)} value=${o.more ? undefined : o.done} aria-label="progress"></progress>
    <button onClick=${() => remove(`operations/${o.id}`).catch(sayProblem)}>Cancel</button></p>`);
}
