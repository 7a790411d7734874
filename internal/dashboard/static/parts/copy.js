// A button that copies text.

import { html, useState } from "../lib/html.js";
import { sayProblem } from "./say.js";

/** @param {{text: string, what: string}} props */
export function Copy({ text, what }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else byHand(text);
      setCopied(true);
      setTimeout(() => setCopied(false), 2000);
    } catch (e) {
      sayProblem(e);
    }
  };
  return html`<button class="quiet" onClick=${copy} aria-label="Copy ${what}">${copied ? "Copied" : "Copy"}</button>`;
}

/** Browsers offer the clipboard on https and loopback only; elsewhere a selection is copied. @param {string} text */
function byHand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("this browser does not let the page copy: mark the text and copy it by hand");
}
