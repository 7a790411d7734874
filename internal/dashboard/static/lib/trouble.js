// What is wrong with a trigger, or with the whole installation, in words: what it is, since when and
// why, what happens next by itself, and what a person can do.

import { ago, count, now, plural, span } from "./format.js";
import { visible } from "./visible.js";

/**
 * @typedef {{
 *   kind: "ok" | "bad" | "pause" | "wait" | "off",
 *   word: string,
 *   since?: string | null,
 *   why?: string,
 *   hint?: string,
 *   next?: string,
 *   remedy?: string,
 *   also?: string,
 *   can: string[],
 * }} Trouble kind ok: none; hint is what the cause usually is; remedy is the part of next that
 *   is not about this trigger's own events; also is what else is wrong, as a sentence;
 *   can names actions (parts/actions.js), or dead: a look at the dead letters
 */

/** What waits in a trigger. @param {any} t */
export const owed = (t) => t.waiting + t.in_flight + t.retrying;

/** "failing" is "is failing"; "waits for …" stays. @param {string} word */
export const verb = (word) => (/^(waits|needs|its|delivers|catches)/.test(word) ? word : /blocked$/.test(word) ? `has ${word}` : `is ${word}`);

/** @param {string} text @returns {string} it as a sentence, without its full stop */
export const capital = (text) => (text.charAt(0).toUpperCase() + text.slice(1)).replace(/\.$/, "");

/** @template {Trouble} T @param {T} is @returns {T} with nothing hidden in words that people or receivers have written */
const shown = (is) => ({ ...is, why: is.why && visible(is.why), next: is.next && visible(is.next), remedy: is.remedy && visible(is.remedy), also: is.also && visible(is.also) });

/**
 * What the causes of a failure usually are.
 *
 * @param {string} text what an attempt has come to, such as "answered 401 Unauthorized"
 */
export function hint(text) {
  const hints = /** @type {[RegExp, string][]} */ ([
    [/answered 3\d\d/, "Redirects are not followed: its URL in rowhook.yaml must be the one that they lead to"],
    [/answered (401|403|407)/, "The receiver does not accept who sends: look at the secret, the token and the signature on both sides"],
    [/answered (404|405|410)/, "The receiver takes no webhooks at this URL: look at its path"],
    [/answered 413/, "The request is too large for the receiver: fewer columns or smaller batches help"],
    [/answered 429/, "The receiver asks for fewer requests: a rate in rowhook.yaml keeps to its limit"],
    [/answered 4\d\d/, "The receiver does not accept what is sent: its answer mostly says why"],
    [/answered 50[234]/, "The receiver, or a proxy before it, is down or overloaded"],
    [/answered 5\d\d/, "The receiver has a fault of its own: its log says more"],
    [/connection refused by/, "Nothing listens there: the receiver is down, or the port is wrong"],
    [/no such host|could not look up host/, "The name in its URL is wrong, or the DNS does not know it at present"],
    [/certificate|TLS/, "The connection can't be made safe: look at the receiver's certificate, and whether its URL is right"],
    [/no response within|timed out/, "The receiver takes too long, or something on the way swallows the request"],
    [/no route to/, "The network does not lead there: look at the address, routes and firewalls"],
    [/connection (reset|closed) by/, "The receiver, or a proxy before it, breaks off: it may be starting, or its log says why"],
  ]);
  return hints.find(([expression]) => expression.test(text))?.[1];
}

/**
 * Tells the state of a trigger: the first of the things that keep its events back, and the others
 * in also. Nothing in its words is hidden, also where people or receivers have written them.
 *
 * @param {any} t a TriggerStatus
 * @param {any} status
 * @param {any} [spec] the Trigger as applied, if it is known
 * @returns {Trouble}
 */
export function trouble(t, status, spec) {
  const [first, ...more] = troubles(t, status);
  if (!first) return shown(well(t, spec));
  return shown({
    ...first,
    also: more.length ? `besides, it ${more.map((m) => `${verb(m.word)}${m.why ? ` (${m.why})` : ""}`).join(", and ")}` : undefined,
    can: [...new Set([first, ...more].flatMap((m) => m.can))].filter((c) => c !== "pause" || !t.paused),
  });
}

const unseen = "Until then changes are made without an event, and nothing sends them later: a backfill sends the rows that are there by then";

/**
 * All that keeps the events of a trigger back, what matters most first.
 *
 * @param {any} t
 * @param {any} status
 * @returns {Trouble[]}
 */
export function troubles(t, status) {
  const warnings = status.warnings.filter((/** @type {any} */ w) => w.trigger === t.name);
  const wait = owed(t);
  const events = plural(wait, "event");
  if (t.removed) {
    return [{ kind: "off", word: "removed", why: `it is no longer in rowhook.yaml; ${events} and ${plural(t.dead, "dead letter")} are left`, next: "they stay until somebody discards them", can: ["dead"] }];
  }
  /** @type {Trouble[]} */
  const found = [];
  for (const w of warnings.filter((/** @type {any} */ x) => x.code === "uncaptured")) {
    found.push({
      kind: "bad", word: "not captured", why: w.problem, remedy: `${w.remedy}. ${unseen}`, next: `${w.remedy}. ${unseen}`, can: [],
    });
  }
  if (t.paused) {
    const p = t.pause;
    found.push({
      kind: "pause", word: "paused", since: p?.at, why: p ? `by ${p.by}${p.reason ? `: “${p.reason}”` : ""}` : "",
      next: `${wait ? `${events} ${wait === 1 ? "waits and loses" : "wait and lose"}` : "what is written waits and loses"} nothing until somebody resumes it`, can: ["resume"],
    });
  }
  const dispatchers = status.instances.filter((/** @type {any} */ i) => i.alive).length;
  if (!dispatchers && wait) found.push({ kind: "bad", word: "waits for a dispatcher", since: t.oldest_at, next: `${events} ${wait === 1 ? "waits and loses" : "wait and lose"} nothing until one runs`, can: [] });
  const unable = warnings.filter((/** @type {any} */ w) => w.code === "cannot_send");
  if (unable.length) {
    const all = unable.length >= dispatchers;
    found.push({
      kind: "wait", word: all ? "waits for its configuration" : `delivers by ${dispatchers - unable.length} of ${dispatchers} dispatchers`, why: unable.map((/** @type {any} */ w) => w.problem).join("; "),
      remedy: unable[0].remedy, next: `${unable[0].remedy}. ${all ? `${wait ? `${events} ${wait === 1 ? "waits and loses" : "wait and lose"}` : "What is written waits and loses"} nothing until then` : "Until then the others send its events"}`, can: [],
    });
  }
  const fails = failing(t);
  if (fails) found.push(fails);
  const hanging = t.hanging.reduce((/** @type {number} */ n, /** @type {any} */ x) => n + x.attempts, 0);
  const longest = t.hanging.map((/** @type {any} */ x) => x.since).sort()[0];
  if (longest && now.value - Date.parse(longest) > 5000) {
    found.push({
      kind: "wait", word: "its endpoint hangs", since: longest, why: `${plural(hanging, "attempt")} without an answer`, hint: "The receiver takes requests and does not answer: it is stuck or overloaded",
      next: `each is given up after the trigger's time-out and tried again, and ${events} ${wait === 1 ? "is" : "are"} left. When the receiver is mended, “Break off” sends what hangs again at once`, can: ["cancel", "pause"],
    });
  }
  if (t.blocked_keys) {
    found.push({
      kind: "wait", word: `${plural(t.blocked_keys, "key")} blocked`, since: status.blocked.find((/** @type {any} */ b) => b.trigger === t.name)?.since,
      why: `a dead letter holds each, and later events of its key wait behind it${t.last_error ? `. The last error: ${t.last_error}` : ""}`, hint: hint(t.last_error ?? ""),
      next: "they go on when the dead letter is redelivered or discarded; other keys do not wait", can: ["dead", "redeliver"],
    });
  }
  for (const w of warnings) {
    if (w.code !== "uncaptured" && w.code !== "cannot_send") found.push({ kind: "wait", word: "needs a look", why: w.problem, remedy: w.remedy, next: w.remedy, can: [] });
  }
  return found;
}

/**
 * What its endpoint does wrong; null: nothing.
 *
 * @param {any} t
 * @returns {Trouble | null}
 */
function failing(t) {
  const h = t.health;
  const events = plural(owed(t), "event");
  const dead = t.dead ? `${plural(t.dead, "dead letter")} ${t.dead === 1 ? "waits" : "wait"} for you: redeliver ${t.dead === 1 ? "it" : "them"} when the cause is mended` : "";
  const letters = t.dead && !t.blocked_keys ? ["dead", "redeliver"] : [];
  if (h?.state === "probing") {
    return { kind: "bad", word: "coming back", since: h.since, why: h.reason, next: [`a probe has got through: work grows back by itself, and ${events} ${owed(t) === 1 ? "is" : "are"} left`, dead].filter(Boolean).join("; "), can: [...letters, "pause"] };
  }
  if (h) {
    const soon = h.prober_id == null && Date.parse(h.probe_at) - now.value > 1000;
    return {
      kind: "bad", word: "failing", since: h.since, why: `${h.reason}${h.host ? `. Nothing reaches ${h.endpoint}, for any trigger` : ""}`, hint: hint(h.reason),
      next: [`${owed(t) ? `${events} ${owed(t) === 1 ? "waits for it and loses" : "wait for it and lose"}` : "what is written waits for it and loses"} nothing. One probe at a time finds out when it is back, ${soon ? `the next ${ago(h.probe_at)}` : "one runs now"}`, dead].filter(Boolean).join("; "),
      can: [...letters, "pause"], // a test event would wait as the others do
    };
  }
  if (!t.failing || (t.blocked_keys && !t.retrying)) return null; // the blocked keys say it
  return {
    kind: "bad", word: "failing", since: t.failing_since, why: t.last_error, hint: hint(t.last_error ?? ""),
    next: [
      t.retrying && `${plural(t.retrying, "event")} will be tried again by ${t.retrying === 1 ? "its" : "their"} schedule`,
      dead,
    ].filter(Boolean).join("; ") || "nothing is waiting to be tried again: the next event shows whether it works",
    can: ["test", ...letters, ...(t.dead ? [] : ["pause"])],
  };
}

/** How old what waits may be before it is spoken of, in ms. */
const late = 5000;

/**
 * The state of a trigger that nothing keeps back.
 *
 * @param {any} t
 * @param {any} spec
 * @returns {Trouble}
 */
function well(t, spec) {
  const oldest = t.oldest_at ? now.value - Date.parse(t.oldest_at) : 0;
  const said = [];
  let word = "delivers";
  if (t.waiting && oldest > late) {
    word = spec?.rate ? "delivers at its rate" : "catches up";
    said.push(`${plural(t.waiting, "event")} ${t.waiting === 1 ? "waits" : "wait"}, the oldest for ${span(oldest)}${spec?.rate ? `, since at most ${spec.rate.limit} may be sent` : ""}`);
  }
  if (t.retrying) said.push(`${count(t.retrying)} ${t.retrying === 1 ? "is" : "are"} tried again`);
  if (t.dead) said.push(`${plural(t.dead, "dead letter")} ${t.dead === 1 ? "waits" : "wait"} for you`);
  return { kind: "ok", word, why: said.join("; ") || undefined, can: ["pause", ...(t.dead ? ["dead", "redeliver"] : [])] };
}

/**
 * Those in trouble, the worst first. What is wrong with several in the same way is told once.
 *
 * @param {any[]} triggers
 * @param {any} status
 * @param {(name: string) => any} [spec]
 * @returns {{is: Trouble, of: any[]}[]}
 */
export function together(triggers, status, spec = () => undefined) {
  /** @type {Map<string, {is: Trouble, of: any[]}>} */
  const groups = new Map();
  for (const t of triggers) {
    const is = trouble(t, status, spec(t.name));
    if (is.kind !== "bad" && is.kind !== "wait") continue;
    const key = JSON.stringify([is.kind, is.word, is.why, is.also]);
    const group = groups.get(key);
    if (group) {
      group.of.push(t);
      if (is.since && group.is.since && is.since < group.is.since) group.is.since = is.since;
      group.is.can = [...new Set([...group.is.can, ...is.can])];
    } else {
      groups.set(key, { is, of: [t] });
    }
  }
  for (const { is, of } of groups.values()) {
    if (of.length === 1) continue;
    is.can = is.can.filter((c) => c === "dead" || c === "redeliver");
    is.next = [is.remedy, sum(of, !is.remedy)].filter(Boolean).join(". ");
  }
  return [...groups.values()].sort((x, y) => Number(y.is.kind === "bad") - Number(x.is.kind === "bad") || y.of.length - x.of.length);
}

/** What happens next to the events of several. @param {any[]} of @param {boolean} always say it, too, if there is nothing */
function sum(of, always) {
  const wait = of.reduce((n, t) => n + owed(t), 0);
  const dead = of.reduce((n, t) => n + t.dead, 0);
  return capital([
    wait ? `${plural(wait, "event")} ${wait === 1 ? "waits and is" : "wait and are"} sent by ${wait === 1 ? "itself" : "themselves"} when the cause is mended` : always && "nothing is waiting to be tried again",
    dead && `${plural(dead, "dead letter")} ${dead === 1 ? "waits" : "wait"} for you: redeliver ${dead === 1 ? "it" : "them"} then`,
  ].filter(Boolean).join("; "));
}

/** Warnings about the whole installation: what they are called, and where more is seen. @type {Record<string, [string, string?]>} */
const titles = {
  schema_is_older: ["The schema is older than this program"], incomplete: ["A part of the schema is missing"], row_level_security: ["Row-level security hides rows from Rowhook"], foreign_grants: ["Others have rights that they should not have"],
  no_history: ["History is not written", "health"], no_activity: ["The figures of the last hour are too low", "health"], history_ends: ["History ends soon", "health"], rings_for_nobody: ["Writers ring for nobody", "dispatchers"],
  alert_not_sent: ["An alert can't be sent", "health"], heartbeat_not_sent: ["The sign of life can't be sent", "health"], unreadable: ["A part of the state can't be read"], notification_queue_fills: ["The queue of notifications fills", "dispatchers"],
};

/**
 * What is wrong with the whole installation, the worst first.
 *
 * @param {any} status
 * @param {any[]} [checks] of the dispatcher that serves the page: those of /readyz
 * @returns {(Trouble & {key: string, page?: string})[]} page says more
 */
export function general(status, checks = []) {
  const found = [];
  const { all_paused: p, vacuum_held_back_by: holder } = status;
  if (!status.instances.some((/** @type {any} */ i) => i.alive)) {
    found.push({
      key: "nobody", kind: /** @type {const} */ ("bad"), word: "No dispatcher is alive", why: "nothing is sent", page: "dispatchers", can: [],
      next: "events are recorded, wait and lose nothing. Start one by “rowhook run”, or see why this one can't work",
    });
  }
  for (const c of checks.filter((x) => !x.ok)) {
    if (c.name === "sending" && status.warnings.some((/** @type {any} */ w) => w.code === "cannot_send")) continue; // told for each trigger
    found.push({ key: `check ${c.name}`, kind: /** @type {const} */ ("bad"), word: failures[c.name] ?? `The check “${c.name}” fails`, why: c.detail, next: c.remedy ?? "it tries again by itself", page: "health", can: [] });
  }
  if (p) {
    const all = status.triggers.every((/** @type {any} */ t) => t.paused || t.removed);
    found.push({
      key: "paused", kind: /** @type {const} */ ("pause"), word: all ? "everything is paused" : "all triggers were paused", since: p.at, why: `by ${p.by}${p.reason ? `: “${p.reason}”` : ""}`, can: ["resumeAll"],
      next: all ? "events wait and lose nothing until somebody resumes them; triggers that are added start paused, too" : "some are resumed by now; triggers that are added start paused until all are resumed",
    });
  }
  for (const w of status.warnings.filter((/** @type {any} */ x) => !x.trigger)) {
    const [word, page] = titles[w.code] ?? ["Needs a look"];
    found.push({ key: w.code + w.problem, kind: /** @type {const} */ ("wait"), word, why: w.problem, next: w.remedy, page, can: [] });
  }
  if (holder) {
    const who = `${holder.kind}${holder.name ? ` ${holder.name}` : ""}${holder.pid ? ` (pid ${holder.pid})` : ""}${holder.user ? ` of ${holder.user}` : ""}`;
    found.push({
      key: "vacuum", kind: /** @type {const} */ ("wait"), word: "Vacuum is held back", since: holder.since, why: `by the ${who}`, page: "dispatchers", can: [],
      next: `deliveries go on, and get slower while what is settled stays in the table. It is over when that ${holder.pid ? `ends; to end it: select pg_terminate_backend(${holder.pid})` : "is finished or removed"}`,
    });
  }
  return found.map(shown);
}

/** What a check that fails means. @type {Record<string, string>} */
const failures = {
  running: "This dispatcher does not run", connected: "The database does not answer", migrated: "The schema does not fit this program", registered: "This dispatcher is not in the list, and takes no events",
  listening: "This dispatcher is not woken by writes", claiming: "This dispatcher can't take events", settling: "This dispatcher can't record answers", sending: "This dispatcher can send for no trigger",
};
