// What is wrong with a trigger, in words, with what happens next by itself and what a person can do.

import { ago, count, now, plural, span } from "./format.js";
import { visible } from "./visible.js";

/**
 * @typedef {{
 *   kind: "ok" | "bad" | "pause" | "wait" | "off",
 *   word: string,
 *   since?: string | null,
 *   why?: string,
 *   next?: string,
 *   can: string[],
 * }} Trouble kind ok: none;
 *   can names actions (parts/actions.js), or dead and blocked: a look at the dead letters
 */

/** What waits in a trigger. @param {any} t */
export const owed = (t) => t.waiting + t.in_flight + t.retrying;

/**
 * Tells the state of a trigger: the first of the things that keep its events back. Nothing in its
 * words is hidden, also where people or receivers have written them.
 *
 * @param {any} t a TriggerStatus
 * @param {any} status
 * @returns {Trouble}
 */
export function trouble(t, status) {
  const found = find(t, status);
  return { ...found, why: found.why && visible(found.why), next: found.next && visible(found.next) };
}

/** @param {any} t @param {any} status @returns {Trouble} */
function find(t, status) {
  const warnings = status.warnings.filter((/** @type {any} */ w) => w.trigger === t.name);
  const wait = owed(t);
  const events = plural(wait, "event");
  if (t.removed) {
    return { kind: "off", word: "removed", why: `it is no longer in rowhook.yaml; ${events} and ${plural(t.dead, "dead letter")} are left`, next: "they stay until somebody discards them", can: ["dead"] };
  }
  const warning = (/** @type {string} */ code) => warnings.find((/** @type {any} */ w) => w.code === code);
  const uncaptured = warning("uncaptured");
  if (uncaptured) return { kind: "bad", word: "not captured", why: uncaptured.problem, next: uncaptured.remedy, can: [] };
  if (t.paused) {
    const p = t.pause;
    return {
      kind: "pause", word: "paused", since: p?.at, why: p ? `by ${p.by}${p.reason ? `: “${p.reason}”` : ""}` : "",
      next: `${wait ? `${events} wait and lose` : "what is written waits and loses"} nothing until somebody resumes it`, can: ["resume"],
    };
  }
  const unable = warning("cannot_send");
  if (unable) return { kind: "wait", word: "waits for its configuration", why: unable.problem, next: unable.remedy, can: [] };
  const h = t.health;
  if (h) {
    const probing = h.state === "probing";
    const left = Date.parse(h.probe_at) - now.value;
    return {
      kind: "bad", word: probing ? "coming back" : "failing", since: h.since, why: `${h.reason}${h.host ? `, by all that goes to ${h.endpoint}` : ""}`,
      next: probing
        ? `a probe has got through: work grows back by itself, ${events} are left`
        : `${wait ? `${events} wait for it and lose` : "what is written waits for it and loses"} nothing: one probe is sent at a time, ${h.prober_id == null && left > 1000 ? `the next ${ago(h.probe_at)}` : "one runs now"}`,
      can: ["test", "pause"],
    };
  }
  const hanging = t.hanging.reduce((/** @type {number} */ n, /** @type {any} */ x) => n + x.attempts, 0);
  const longest = t.hanging.map((/** @type {any} */ x) => x.since).sort()[0];
  if (longest && now.value - Date.parse(longest) > 5000) {
    return {
      kind: "wait", word: "its endpoint hangs", since: longest, why: `${plural(hanging, "attempt")} without an answer, the oldest for ${span(now.value - Date.parse(longest))}`,
      next: `each is given up after the trigger's time-out and tried again; ${events} are left`, can: ["cancel", "pause"],
    };
  }
  if (t.blocked_keys) {
    return {
      kind: "wait", word: `${plural(t.blocked_keys, "key")} blocked`, why: "a dead letter holds each, and its later events wait behind it",
      next: "they go on when the dead letter is redelivered or discarded; other keys do not wait", can: ["blocked"],
    };
  }
  if (t.failing) {
    return {
      kind: "bad", word: "failing", since: t.failing_since, why: t.last_error,
      next: [
        t.retrying && `${plural(t.retrying, "event")} will be tried again by ${t.retrying === 1 ? "its" : "their"} schedule`,
        t.dead && `${plural(t.dead, "dead letter")} ${t.dead === 1 ? "waits" : "wait"} for you: redeliver ${t.dead === 1 ? "it" : "them"} when the cause is mended`,
      ].filter(Boolean).join("; ") || "nothing is tried again",
      can: t.dead ? ["test", "dead", "redeliver"] : ["test", "pause"],
    };
  }
  for (const w of warnings) return { kind: "wait", word: "needs a look", why: w.problem, next: w.remedy, can: [] };
  if (t.retrying) return { kind: "ok", word: "delivers", why: `${count(t.retrying)} are tried again`, can: ["pause"] };
  return { kind: "ok", word: "delivers", can: ["pause"] };
}
