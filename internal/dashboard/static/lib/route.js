// Where we are: #/trigger/NAME, #/events?q=state:dead. All of it is behind the #, so that any proxy
// and any path serves it.

import { signal } from "../vendor/signals-core.js";

/** @typedef {{page: string, name: string, query: URLSearchParams}} Route */

/** @returns {Route} */
function read() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [page, ...rest] = path.split("/");
  return { page, name: decode(rest.join("/")), query: new URLSearchParams(query ?? "") };
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = signal(read());
addEventListener("hashchange", () => (route.value = read()));

/**
 * link("trigger", "x") is "#/trigger/x".
 *
 * @param {string} page
 * @param {string} [name]
 * @param {Record<string, string>} [query]
 */
export function link(page, name = "", query = {}) {
  const q = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== "")).toString();
  return `#/${page}${name ? `/${encodeURIComponent(name)}` : ""}${q ? `?${q}` : ""}`;
}

/**
 * Goes to a link. replace leaves no step to go back to, as while somebody types.
 *
 * @param {string} to
 * @param {{replace?: boolean}} [options]
 */
export function go(to, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", to);
    route.value = read();
  } else {
    location.hash = to;
  }
}
