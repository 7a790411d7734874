// What can be done to a trigger. Each action names what it does, asks where it can't be undone, and
// says what came of it. Nothing is shown that the server would refuse.

import { may, post } from "../lib/api.js";
import { plural } from "../lib/format.js";
import { html } from "../lib/html.js";
import { parse } from "../lib/json.js";
import { go, link } from "../lib/route.js";
import { refresh, status } from "../lib/status.js";
import { bulk } from "./bulk.js";
import { ask } from "./dialog.js";
import { replay } from "./replay.js";
import { say, sayProblem } from "./say.js";

/**
 * Does something, and asks for the state anew.
 *
 * @param {() => Promise<string>} act returns what came of it
 */
async function doing(act) {
  try {
    say(await act());
    await refresh();
  } catch (e) {
    sayProblem(e);
  }
}

/** @param {string} name */
async function pause(name) {
  const answer = await ask({
    title: `Pause ${name}?`, yes: "Pause", body: "Its events wait and lose nothing. What is in flight is finished.",
    fields: [{ name: "reason", label: "Reason", hint: "Others see it, with who paused it." }],
  });
  if (answer) {
    await doing(async () => {
      await post("pause", { triggers: [name], ...(answer.reason && { reason: answer.reason }) });
      return `${name} is paused`;
    });
  }
}

/** @param {string} name */
const resume = (name) =>
  doing(async () => {
    await post("resume", { triggers: [name] });
    return `${name} delivers again`;
  });

/** @param {string} name */
async function test(name) {
  const answer = await ask({
    title: `Send a test event to ${name}?`, yes: "Send",
    body: "It is recorded and sent as any other event, with op MANUAL, so its receiver may act on it.",
    fields: [{ name: "payload", label: "Payload", hint: "JSON", value: '{"test": true}', rows: 6, required: true },
      { name: "session", label: "Session variables", hint: 'A JSON object, such as {"x-hasura-user-id": "7"}. Empty: none.', rows: 2 }],
  });
  if (!answer) return;
  /** @type {Record<string, any>} */
  const body = {};
  for (const [key, what, text] of [["payload", "payload is", answer.payload], ["session_variables", "session variables are", answer.session.trim()]]) {
    if (!text) continue;
    try {
      body[key] = parse(text);
    } catch (e) {
      say(`The ${what} not JSON: ${/** @type {Error} */ (e).message}`, { bad: true });
      return;
    }
  }
  try {
    const { id } = await post(`triggers/${encodeURIComponent(name)}/invoke`, body);
    say(`The event ${id} is recorded`);
    go(link("event", id));
  } catch (e) {
    sayProblem(e);
  }
}

/** @param {string} name */
async function cancel(name) {
  if (!(await ask({ title: `Break off what hangs at ${name}?`, yes: "Break off", body: "The attempts in flight are broken off and do not count. Their events are sent again at once." }))) return;
  await doing(async () => {
    const c = await post(`triggers/${encodeURIComponent(name)}/cancel`);
    return `${plural(c.in_flight, "attempt")} of ${name} ${c.in_flight === 1 ? "is" : "are"} broken off`;
  });
}

/** @param {string} name */
async function backfill(name) {
  const several = status.value?.triggers.some((/** @type {any} */ t) => t.name === name && t.several);
  const answer = await ask({
    title: `Backfill ${name}?`, yes: "Backfill",
    body: `Each present row of ${several ? "one of its tables" : "its table"} is recorded as an event. It takes the room that other events leave.`,
    fields: [
      ...(several ? [{ name: "table", label: "Table", hint: "Which of its tables to read, such as public.orders." }] : []),
      ...(may("backfill_where") ? [{ name: "where", label: "Only rows where", hint: "A condition in SQL, such as created_at > now() - interval '1 day'. Empty: all rows." }] : []),
    ],
  });
  if (!answer) return;
  try {
    const operation = await post(`triggers/${encodeURIComponent(name)}/backfill`, { ...(answer.where && { where: answer.where }), ...(answer.table && { table: answer.table }) }, { wait: 0 });
    say(`The backfill of ${name} runs`);
    go(link("operations", operation.id));
  } catch (e) {
    sayProblem(e);
  }
}

async function resumeAll() {
  if (!(await ask({ title: "Resume all triggers?", yes: "Resume all", body: "Each delivers again, also those that were paused for themselves." }))) return;
  await doing(async () => {
    await post("resume", { all: true });
    return "All triggers deliver again";
  });
}

/** @param {string} name @param {string[]} names */
const redeliverDead = (name, names) => bulk("redeliver", { states: ["dead"], triggers: names }, `the dead letters of ${names.length > 1 ? plural(names.length, "trigger") : name}`);

/** @param {string} name */
const discardDead = (name) => bulk("discard", { states: ["dead"], triggers: [name] }, `the dead letters of ${name}`);

/** @type {Record<string, {word: string, need: string, act: (name: string, names: string[]) => any, danger?: boolean}>} */
const actions = {
  pause: { word: "Pause…", need: "pause", act: pause },
  resume: { word: "Resume", need: "resume", act: resume },
  resumeAll: { word: "Resume all…", need: "resume", act: resumeAll },
  test: { word: "Test event…", need: "invoke", act: test },
  cancel: { word: "Break off…", need: "cancel", act: cancel },
  backfill: { word: "Backfill…", need: "backfill", act: backfill },
  replay: { word: "Replay…", need: "replay", act: replay },
  redeliver: { word: "Redeliver the dead…", need: "redeliver", act: redeliverDead },
  discard: { word: "Discard the dead…", need: "discard", act: discardDead },
};

/**
 * Buttons for these actions, as far as the token may do them.
 *
 * @param {{name?: string, names?: string[], can: string[]}} props names: the actions are on all of them
 */
export function Buttons({ name = "", names = [name], can }) {
  const whose = names.length > 1 ? plural(names.length, "trigger") : names[0];
  return html`${can.filter((c) => actions[c] && may(actions[c].need)).map((c) => html`<button key=${c} aria-label=${`${actions[c].word.replace("…", "")} ${whose}`.trim()}
    onClick=${() => actions[c].act(names[0], names)}>${actions[c].word}</button>`)}`;
}
