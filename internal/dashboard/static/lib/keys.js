// Keys that work on the whole page. They do nothing while somebody types, or with Ctrl, Alt or Meta.

/** @type {{key: string, what: string, act: () => void}[]} */
const keys = [];

/**
 * Acts on a key until the function that is returned is called. The latest listener has the key.
 *
 * @param {string} key
 * @param {string} what for the help
 * @param {() => void} act
 */
export function listen(key, what, act) {
  const entry = { key, what, act };
  keys.unshift(entry);
  return () => void keys.splice(keys.indexOf(entry), 1);
}

/** The keys that do something now, for the help. */
export const listed = () => [...new Map([...keys].reverse().map((k) => [k.key, k.what]))];

addEventListener("keydown", (e) => {
  const at = /** @type {Element} */ (e.target);
  if (e.ctrlKey || e.altKey || e.metaKey || e.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (at instanceof HTMLElement && at.matches("input, textarea, select, [contenteditable]")) {
    if (e.key === "Escape") at.blur();
    return;
  }
  const entry = keys.find((k) => k.key === e.key);
  if (!entry) return;
  e.preventDefault();
  entry.act();
});
