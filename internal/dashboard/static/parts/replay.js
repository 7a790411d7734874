// A replay: what was delivered is sent once more. It is counted first, asked, and carried out as an
// operation of the server.

import { get, may, post } from "../lib/api.js";
import { parse, time, toQuery } from "../lib/filter.js";
import { exact, plural } from "../lib/format.js";
import { html } from "../lib/html.js";
import { go, link } from "../lib/route.js";
import { refresh } from "../lib/status.js";
import { visible } from "../lib/visible.js";
import { ask } from "./dialog.js";
import { say, sayProblem } from "./say.js";

const path = (/** @type {string} */ name) => `triggers/${encodeURIComponent(name)}/replay`;

/** Asks what to replay, counts it, asks again and begins. @param {string} name */
export async function replay(name) {
  try {
    const { unfinished } = await get(path(name), { from: new Date(Date.now() - 6e4).toISOString() });
    if (unfinished?.running) {
      say(`A replay of ${name} is running`);
      go(link("operations"));
      return;
    }
    let restart = false;
    if (unfinished) {
      const answer = await ask({
        title: `Go on with the replay of ${name}?`, yes: "Go on", body: `It was interrupted after ${plural(unfinished.replayed, "event")} of ${exact(unfinished.from)} to ${exact(unfinished.to)}.`,
        fields: [{ name: "what", label: "What to do", value: "continue", options: [["continue", "Send the rest of it"], ["restart", "Abandon it, and begin another one"]] }],
      });
      if (!answer) return;
      restart = answer.what === "restart";
      if (!restart) return await begin(name, { continue: true });
    }
    await choose(name, restart);
  } catch (e) {
    sayProblem(e);
  }
}

/** @param {string} name @param {boolean} restart */
async function choose(name, restart) {
  const answer = await ask({
    title: `Replay ${name}?`, yes: "Count", body: "Events that were delivered are sent once more, oldest first, from the archive.",
    fields: [
      { name: "from", label: "Recorded since", hint: "30m, 1h or 7d ago, 14:02, 2026-11-01 or 2026-11-01T10:00", value: "1h", required: true },
      { name: "to", label: "Recorded before", hint: "In the same form. Empty: now." },
      { name: "words", label: "Only events that match", hint: may("payloads") ? "Words as in the list of events: op:update new.customer_id:7. Empty: all." : "op:insert, op:update, op:delete, op:truncate or op:manual. Empty: all." },
      { name: "ids", label: "Sent under", value: "old", options: [["old", "their old ids: a receiver may drop what it has seen"], ["new", "new ids: the receiver takes them for new"]] },
    ],
  });
  if (!answer) return;
  const now = Date.now();
  const from = time(answer.from.trim(), now);
  const to = answer.to.trim() ? time(answer.to.trim(), now) : now;
  const { terms, faults } = parse(answer.words, now);
  const other = terms.find((t) => !["op", "payload"].includes(t.word) && !t.word.includes("."));
  const wrong = Number.isNaN(from) || Number.isNaN(to) ? "Write a time such as 30m, 1h, 7d, 14:02, 2026-11-01 or 2026-11-01T10:00"
    : from >= to ? "The beginning must be before the end"
      : faults[0]?.text ?? (other && `A replay can't be chosen by ${other.word}; write words such as op:update or new.id:7`);
  if (wrong) {
    say(wrong, { bad: true });
    return;
  }
  const { op: ops, payload } = toQuery(terms, now);
  const range = { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
  const plan = await get(path(name), { ...range, op: ops, payload });
  const gone = plan.reaches_back_to === null ? "The archive has no event of it. " : Date.parse(plan.reaches_back_to) > from + 1000 ? `The archive reaches back to ${exact(plan.reaches_back_to)}. ` : "";
  if (plan.events === 0 && !plan.more) {
    say(`There is nothing to replay. ${gone}`);
    return;
  }
  const many = `${plan.more ? "more than " : ""}${plural(plan.events, "event")}`;
  const asNew = answer.ids === "new";
  const body = html`<p>These are events of ${visible(name)} that were recorded from ${exact(plan.from)} to ${exact(plan.to)}. ${gone}${plan.copies > 0 && `Up to ${plural(plan.copies, "copy", "copies")} that an earlier replay has sent as new are among them. `}</p>
    <p>${asNew ? "They get new ids, so the receiver takes them for new." : "They keep their ids, so a receiver that drops what it has seen drops them."}${plan.paused && " The trigger is paused: they wait until it is resumed."}</p>`;
  if (!(await ask({ title: `Replay ${many}?`, yes: `Replay ${many}`, body }))) return;
  await begin(name, { ...range, ...(asNew && { as_new: true }), ...(ops && { ops }), ...(payload && { payload }), ...(restart && { restart }) });
}

/** Goes on with a replay that was interrupted. @param {string} name */
export async function goOn(name) {
  try {
    await begin(name, { continue: true });
  } catch (e) {
    sayProblem(e);
  }
}

/** @param {string} name @param {any} body */
async function begin(name, body) {
  const operation = await post(path(name), body, { wait: 0 });
  say(`The replay of ${name} runs`);
  await refresh().catch(() => {}); // the next status tells
  go(link("operations", operation.id));
}
