// Data that a page loads once and again, with what stands in its place until then.

import { Problem } from "./api.js";
import { useEffect, useRef, useState } from "./html.js";

/**
 * Calls load at once, when one of keys changes, and every so many ms while the tab is seen.
 *
 * @template T
 * @param {(abort: AbortSignal) => Promise<T>} load
 * @param {any[]} keys
 * @param {number} [every] ms; 0: once
 * @returns {{data: T | null, problem: Problem | null, again: () => void}} data is the latest, also while
 *   a newer one is awaited or has failed
 */
export function useLoad(load, keys, every = 0) {
  const [state, setState] = useState(/** @type {{data: T | null, problem: Problem | null}} */ ({ data: null, problem: null }));
  const [round, setRound] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    const abort = new AbortController();
    /** @type {any} */
    let timer;
    const run = async () => {
      try {
        const data = await latest.current(abort.signal);
        if (!abort.signal.aborted) setState({ data, problem: null });
      } catch (e) {
        if (abort.signal.aborted) return;
        const problem = e instanceof Problem ? e : new Problem({ status: 0, code: "page", detail: String(e) });
        setState((s) => ({ ...s, problem }));
      }
      if (every && !abort.signal.aborted) timer = setTimeout(tick, every);
    };
    const tick = () => (document.hidden ? (timer = setTimeout(tick, every)) : void run());
    void run();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [...keys, round]);
  return { ...state, again: () => setRound((n) => n + 1) };
}
