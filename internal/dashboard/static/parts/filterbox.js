// The box in which a filter is written. It completes words and their values, as a combobox whose
// list is reached by the arrow keys while the focus stays in the box.

import { may } from "../lib/api.js";
import { complete, parse } from "../lib/filter.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { listen } from "../lib/keys.js";
import { status } from "../lib/status.js";
import { visible } from "../lib/visible.js";

/** What the server has to choose from. */
function known() {
  const triggers = status.value?.triggers ?? [];
  return {
    triggers: triggers.map((/** @type {any} */ t) => t.name), tables: [...new Set(triggers.filter((/** @type {any} */ t) => !t.several).map((/** @type {any} */ t) => t.table))], data: may("payloads"),
  };
}

/**
 * submit is called with text that has no faults.
 *
 * @param {{id: string, value: string, submit: (text: string) => void, label?: string}} props
 */
export function FilterBox({ id, value, submit, label = "Filter of events" }) {
  const input = useRef(/** @type {any} */ (null));
  const [text, setText] = useState(value);
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const [caret, setCaret] = useState(0);
  const [faults, setFaults] = useState(/** @type {import("../lib/filter.js").Fault[]} */ ([]));
  useEffect(() => {
    setText(value);
    setFaults(parse(value).faults);
    setOpen(false);
  }, [value]);
  useEffect(() => listen("/", "search events", () => {
    input.current.focus();
    input.current.select();
  }), []);
  useEffect(() => {
    if (at >= 0) document.getElementById(`${id}-${at}`)?.scrollIntoView({ block: "nearest" });
  }, [at]);

  const place = useRef(-1); // where the caret belongs once the text is there
  useEffect(() => {
    if (place.current >= 0) input.current.setSelectionRange(place.current, place.current);
    place.current = -1;
  }, [text]);

  const { from, to, options } = open ? complete(text, caret, known()) : { from: 0, to: 0, options: [] };
  const shown = open && options.length > 0;
  const edit = (/** @type {any} */ e) => {
    place.current = -1;
    setText(e.target.value);
    setCaret(e.target.selectionStart);
    setAt(-1);
    setOpen(true);
    setFaults([]);
  };
  const take = (/** @type {number} */ n) => {
    const insert = options[n].insert;
    const next = text.slice(0, from) + insert + text.slice(to);
    setText(next);
    setAt(-1);
    setFaults([]);
    setCaret(from + insert.length);
    setOpen(!insert.endsWith(" "));
    place.current = from + insert.length;
  };
  const onSubmit = (/** @type {Event | null} */ e) => {
    e?.preventDefault();
    setOpen(false);
    const wrong = parse(text).faults;
    setFaults(wrong);
    if (wrong.length) return;
    input.current.blur(); // so that keys move in what is found
    submit(text.trim());
  };
  const onKeyDown = (/** @type {KeyboardEvent} */ e) => {
    if (e.isComposing) return;
    const down = e.key === "ArrowDown";
    if ((down || e.key === "ArrowUp") && !e.altKey) {
      e.preventDefault();
      if (!open) {
        setCaret(input.current.selectionStart);
        setOpen(true);
        setAt(-1);
      } else if (shown) {
        setAt(at < 0 ? (down ? 0 : options.length - 1) : (at + (down ? 1 : options.length - 1)) % options.length);
      }
    } else if ((e.key === "Enter" || e.key === "Tab") && shown && at >= 0) {
      e.preventDefault();
      take(at);
    } else if (e.key === "Tab" && shown && !e.shiftKey && options.length === 1 && text.slice(from, caret) !== options[0].insert.trim()) {
      e.preventDefault();
      take(0);
    } else if (e.key === "Escape") {
      e.preventDefault(); // a field of this type would lose its text
      if (!shown) input.current.blur();
      setOpen(false);
      setAt(-1);
    }
  };
  const moved = (/** @type {any} */ e) => setCaret(e.target.selectionStart);
  return html`<form class="filterbox" role="search" onSubmit=${onSubmit}>
    <input ref=${input} id=${id} type="search" role="combobox" aria-label=${label} aria-autocomplete="list" aria-expanded=${shown} aria-controls="${id}-list"
      aria-activedescendant=${shown && at >= 0 ? `${id}-${at}` : undefined} aria-invalid=${faults.length > 0} aria-describedby="${id}-faults"
      placeholder="state:dead trigger:… new.id:7" spellcheck="false" autocomplete="off" autocapitalize="off" value=${text}
      onInput=${edit} onKeyDown=${onKeyDown} onClick=${moved} onFocus=${moved} onBlur=${() => setOpen(false)} />
    ${!text && html`<kbd aria-hidden="true">/</kbd>`}
    <ul id="${id}-list" class="options" role="listbox" aria-label="Words" hidden=${!shown}>
      ${options.map((o, n) => html`<li key=${o.insert} id="${id}-${n}" role="option" aria-selected=${n === at} onMouseDown=${(/** @type {Event} */ e) => {
        e.preventDefault();
        take(n);
      }}><span class="mono">${visible(o.show)}</span>${o.hint && html` <span class="sub">${o.hint}</span>`}</li>`)}</ul>
    <div id="${id}-faults" role="status">${faults.map((f) => html`<p key=${f.text} class="fault"><span class="s bad">${visible(f.text)}</span></p>`)}</div>
  </form>`;
}
