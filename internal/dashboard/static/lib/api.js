// The one way to /api/v1.

import { signal, batch } from "../vendor/signals-core.js";
import { parse, stringify } from "./json.js";

/** Every request of the page is relative to it, so a proxy may put the page below a path. */
const base = new URL("api/v1/", new URL(".", location.href));

// The token is kept for this tab, until it is closed or signs out. A link may carry it behind #token=,
// which browsers do not send: `rowhook dev` prints one. It is taken out of the address at once.
const kept = "rowhook.token";

/** Takes the token out of the address. Returns it; "": there is none. */
function handed() {
  const [, text] = /^#token=([\x21-\x7e]+)$/.exec(location.hash) ?? [];
  if (!text) return "";
  history.replaceState(null, "", location.pathname + location.search + "#/");
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // it was cut off: the server says that it is not valid
  }
}

const first = handed();
if (first) sessionStorage.setItem(kept, first);
// Where the page is open already, such a link does not load it again. This module is loaded before the
// one that reads where we are.
addEventListener("hashchange", () => {
  const next = handed();
  if (next) void signIn(next);
});

/** The bearer token of this tab; "": none. */
export const token = signal(sessionStorage.getItem(kept) ?? "");

/**
 * What the token may do: the answer of GET /api/v1/me. null: not known yet.
 *
 * @type {import("../vendor/signals-core.js").Signal<any>}
 */
export const me = signal(null);

/** The names of the sources that this process works on; empty: it works on one database. */
export const sources = signal(/** @type {string[]} */ ([]));

/** The source that this tab shows; "": there is one database. */
export const source = signal("");

/** The address of the page for a source, so that a link leads to what it was copied from. @param {string} name @param {string} hash */
const addressOf = (name, hash) => `${location.pathname}?source=${encodeURIComponent(name)}${hash}`;

/** Shows another source. Everything that is known is of the one before, so the page begins anew. @param {string} name */
export function show(name) {
  location.assign(addressOf(name, "#/"));
}

/** Asks which sources there are, and chooses the one of the address, or else the first. */
async function choose() {
  const answer = await get("sources");
  /** @type {string[]} */
  const names = answer.sources.map((/** @type {any} */ s) => s.source);
  const asked = new URLSearchParams(location.search).get("source") ?? "";
  batch(() => {
    sources.value = names;
    source.value = names.includes(asked) ? asked : (names[0] ?? "");
  });
  if (names.length > 1) history.replaceState(null, "", addressOf(source.value, location.hash));
}

/** Why the page can't be shown: a Problem; null: it can. */
export const refused = signal(/** @type {Problem | null} */ (null));

/** Whether the last request reached the server. */
export const reachable = signal(true);

/** @param {string} action @returns {boolean} whether the server would take it from this token */
export const may = (action) => Boolean(me.value?.may.includes(action));

/** An error that says what is wrong and what to do about it. */
export class Problem extends Error {
  /** @param {{status: number, code: string, detail: string, remedy?: string}} p */
  constructor(p) {
    super(p.detail);
    this.status = p.status;
    this.code = p.code;
    this.detail = p.detail;
    this.remedy = p.remedy ?? "";
  }
}

/** @param {string} text */
export function signIn(text) {
  sessionStorage.setItem(kept, text);
  batch(() => {
    token.value = text;
    refused.value = null;
    me.value = null;
  });
  return identify();
}

export function signOut() {
  sessionStorage.removeItem(kept);
  batch(() => {
    token.value = "";
    me.value = null;
  });
  return identify();
}

/** Asks who we are. */
export async function identify() {
  try {
    await choose();
    const answer = await get("me");
    batch(() => {
      me.value = answer;
      refused.value = null;
    });
  } catch (e) {
    if (!(e instanceof Problem)) throw e;
    refused.value = e;
    if (e.status === 0 || e.status >= 500) setTimeout(identify, 3000); // it is not the token
  }
}

/**
 * @typedef {Record<string, string | number | boolean | string[] | null | undefined>} Query
 * @param {string} path
 * @param {Query} [query]
 */
export function url(path, query = {}) {
  const to = new URL(path, base);
  if (source.value && path !== "sources" && to.href.startsWith(base.href)) to.searchParams.append("source", source.value);
  for (const [name, value] of Object.entries(query)) {
    for (const v of Array.isArray(value) ? value : [value]) {
      if (v !== null && v !== undefined && v !== "") to.searchParams.append(name, String(v));
    }
  }
  return to;
}

/**
 * Sends a request, and returns the response if it is a success. Throws a Problem.
 *
 * @param {string} method
 * @param {string} path
 * @param {{query?: Query, body?: any, text?: string, headers?: Record<string, string>, abort?: AbortSignal}} [options]
 */
export async function send(method, path, { query, body, text, headers = {}, abort } = {}) {
  const sent = token.value;
  /** @type {Record<string, string>} */
  const all = { ...headers };
  if (sent) all.Authorization = `Bearer ${sent}`;
  if (body !== undefined) all["Content-Type"] = "application/json";
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url(path, query), {
      method, headers: all, body: body === undefined ? text : stringify(body, 0), signal: abort, credentials: "same-origin", cache: "no-store", redirect: "error",
    });
  } catch (e) {
    if (abort?.aborted) throw e;
    reachable.value = false;
    throw new Problem({ status: 0, code: "unreachable", detail: "the server does not answer", remedy: "see whether rowhook is running; this page goes on by itself when it is back" });
  }
  reachable.value = true;
  if (response.ok) return response;
  const problem = await asProblem(response);
  if (response.status === 401 && sent === token.value) {
    batch(() => {
      me.value = null;
      refused.value = problem;
    });
  }
  throw problem;
}

/** @param {Response} response */
async function asProblem(response) {
  try {
    const p = parse(await response.text());
    if (typeof p?.detail === "string" && typeof p?.code === "string") return new Problem({ ...p, status: response.status });
  } catch {
    // it is no problem of ours: a proxy has answered
  }
  return new Problem({
    status: response.status, code: "foreign", detail: `the server answered ${response.status} ${response.statusText}, which is not an answer of Rowhook`,
    remedy: "look at what stands between the browser and Rowhook, such as a proxy",
  });
}

/**
 * @param {string} path
 * @param {Query} [query]
 * @param {AbortSignal} [abort]
 */
export async function get(path, query, abort) {
  return parse(await (await send("GET", path, { query, abort })).text());
}

/**
 * @param {string} path
 * @param {any} body
 * @param {{query?: Query, wait?: number, method?: string, abort?: AbortSignal}} [options] wait: seconds that the answer may take
 */
export async function post(path, body = {}, { query, wait, method = "POST", abort } = {}) {
  const response = await send(method, path, { query, body, abort, headers: wait === undefined ? {} : { Prefer: `wait=${wait}` } });
  const text = await response.text();
  return text ? parse(text) : null;
}

/** @param {string} path */
export async function remove(path) {
  const text = await (await send("DELETE", path)).text();
  return text ? parse(text) : null;
}

/**
 * Reads lines of JSON until the server ends the stream or abort is called. Empty lines keep it alive:
 * onBytes is called for them, too.
 *
 * @param {string} path
 * @param {{query?: Query, abort: AbortSignal, onOpen?: () => void, onBytes?: () => void, onLine: (value: any) => void}} options
 */
export async function stream(path, { query, abort, onOpen, onBytes, onLine }) {
  const response = await send("GET", path, { query, abort, headers: { Accept: "application/x-ndjson" } });
  onOpen?.();
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes?.();
    rest += decoder.decode(value, { stream: true });
    let end;
    while ((end = rest.indexOf("\n")) >= 0) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      if (line.trim()) onLine(parse(line));
    }
  }
}
