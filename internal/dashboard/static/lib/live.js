// What is live: one stream from the server for all tabs that hold the same token.
//
// A browser opens six connections to a host. So of the tabs that show the same thing one reads the
// stream and hands each message to the others: it is the one that holds a lock (Web Locks), and it
// speaks over a BroadcastChannel. Both are named after a digest of the token, so a tab without it
// hears nothing. A tab that is hidden gives the lock to another and listens no more. Browsers offer
// locks on https and on loopback only; elsewhere each tab reads for itself.
//
// Where streams are cut off, as by a proxy that buffers, the tab asks again and again instead.

import { signal } from "../vendor/signals-core.js";
import { Problem, reachable, source, stream, token } from "./api.js";

/** How long a stream may keep silent: the server writes at least every 15 s. */
const silence = 40_000;
/** How long the first bytes may take where it can ask instead: the server writes at once. */
const firstSilence = 5_000;
/** How often is asked where streams do not get through. */
const pollPeriod = 3_000;
/** How often it asks before it tries a stream again. */
const pollsPerStream = 20;
const retryPeriod = 2_000;

/** How the latest message came: by a stream, by asking, or not at all. */
export const arrival = signal(/** @type {"stream" | "poll" | "none"} */ ("none"));

/** Whether streams do not get through, so that the page asks again and again. */
export const cutOff = signal(false);

/**
 * @typedef {{
 *   path: string,
 *   query?: import("./api.js").Query,
 *   poll?: () => Promise<any[]>,
 *   onMessage: (message: any) => void,
 *   onProblem?: (problem: Problem | null) => void,
 *   onOpen?: () => void,
 * }} Topic poll returns the messages that a stream would have brought; without it there is none.
 *   onOpen is called when a stream begins, also anew: what came before is not in it
 */

/**
 * Follows a topic until the function that is returned is called. While the tab is hidden nothing
 * arrives.
 *
 * @param {Topic} topic
 * @returns {() => void}
 */
export function follow(topic) {
  /** @type {AbortController | null} */
  let running = null;
  const start = () => {
    if (running) return;
    running = new AbortController();
    void share(topic, running.signal);
  };
  const stop = () => {
    running?.abort();
    running = null;
  };
  const seen = () => (document.hidden ? stop() : start());
  document.addEventListener("visibilitychange", seen);
  addEventListener("pagehide", stop);
  addEventListener("pageshow", seen);
  seen();
  return () => {
    document.removeEventListener("visibilitychange", seen);
    removeEventListener("pagehide", stop);
    removeEventListener("pageshow", seen);
    stop();
  };
}

/** @param {string} text */
async function digest(text) {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(bytes), (b) => b.toString(16).padStart(2, "0")).join("");
}

/**
 * Reads the topic, or hears it from the tab that does.
 *
 * @param {Topic} topic
 * @param {AbortSignal} abort
 */
async function share(topic, abort) {
  if (!navigator.locks || !crypto.subtle) return read(topic, abort, () => {});
  const name = `rowhook:${await digest(JSON.stringify([token.value, source.value, topic.path, topic.query ?? {}]))}`;
  if (abort.aborted) return;
  const channel = new BroadcastChannel(name);
  abort.addEventListener("abort", () => channel.close());
  /** @type {any[]} */
  let latest = []; // what a tab that joins must know: the last message of each kind
  const keep = (/** @type {any} */ message) => {
    const kind = Object.keys(message)[0];
    latest = latest.filter((m) => Object.keys(m)[0] !== kind);
    if (kind !== "event") latest.push(message);
  };
  let leads = false;
  channel.onmessage = ({ data }) => {
    if (leads && data.ask) for (const message of latest) channel.postMessage({ message: plain(message), how: arrival.value });
    if (!leads && data.opened) topic.onOpen?.();
    if (!leads && data.message) {
      arrival.value = data.how;
      cutOff.value = data.how === "poll";
      reachable.value = true;
      topic.onProblem?.(null);
      topic.onMessage(data.message);
    }
  };
  channel.postMessage({ ask: true });
  try {
    await navigator.locks.request(name, { signal: abort }, async () => {
      leads = true;
      const opened = () => {
        topic.onOpen?.();
        if (!abort.aborted) channel.postMessage({ opened: true });
      };
      await read({ ...topic, onOpen: opened }, abort, (message) => {
        keep(message);
        if (!abort.aborted) channel.postMessage({ message: plain(message), how: arrival.value });
      });
    });
  } catch (e) {
    if (!abort.aborted) throw e;
  }
}

/** A message that a channel can carry: classes, such as Digits, would lose their methods. @param {any} v @returns {any} */
function plain(v) {
  if (v === null || typeof v !== "object") return v;
  if (Array.isArray(v)) return v.map(plain);
  if (typeof v.text === "string" && Object.getPrototypeOf(v) !== null && v.constructor !== Object) return v.text;
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, plain(x)]));
}

/**
 * Reads the topic until abort.
 *
 * @param {Topic} topic
 * @param {AbortSignal} abort
 * @param {(message: any) => void} hand
 */
async function read(topic, abort, hand) {
  let cut = 0; // streams in a row that brought nothing
  const take = (/** @type {any} */ message, /** @type {"stream" | "poll"} */ how) => {
    if (abort.aborted) return;
    arrival.value = how;
    cutOff.value = how === "poll";
    topic.onProblem?.(null);
    topic.onMessage(message);
    hand(message);
  };
  while (!abort.aborted) {
    try {
      if (cut >= 2 && topic.poll) {
        for (let asked = 0; asked < pollsPerStream && !abort.aborted; asked++) {
          for (const message of await topic.poll()) take(message, "poll");
          await pause(pollPeriod, abort);
        }
        cut = 1; // try a stream again: perhaps what cut it off is gone
        continue;
      }
      let messages = 0;
      let bytes = 0;
      const guarded = new AbortController();
      const end = () => guarded.abort();
      abort.addEventListener("abort", end);
      let watch = setTimeout(end, topic.poll ? firstSilence : silence);
      try {
        await stream(topic.path, {
          query: topic.query, abort: guarded.signal,
          onOpen: () => {
            topic.onProblem?.(null);
            topic.onOpen?.();
          },
          onBytes: () => {
            clearTimeout(watch);
            watch = setTimeout(end, silence);
            bytes++;
          },
          onLine: (message) => {
            messages++;
            take(message, "stream");
          },
        });
      } catch (e) {
        if (!guarded.signal.aborted) throw e;
      } finally {
        clearTimeout(watch);
        abort.removeEventListener("abort", end);
      }
      cut = messages ? 0 : bytes ? cut + 1 : 2; // without one byte, something on the way keeps them all
    } catch (e) {
      if (abort.aborted) return;
      arrival.value = "none";
      if (!(e instanceof Problem) || e.status === 0) {
        reachable.value = false; // nobody answers, or the connection broke in the middle of a stream
      } else {
        cut++;
        topic.onProblem?.(e);
        if (e.status === 401 || e.status === 403) return; // asking again would not help
      }
    }
    await pause(retryPeriod, abort);
  }
}

/** @param {number} ms @param {AbortSignal} abort @returns {Promise<void>} */
function pause(ms, abort) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      abort.removeEventListener("abort", done);
      resolve();
    }
    abort.addEventListener("abort", done);
  });
}

