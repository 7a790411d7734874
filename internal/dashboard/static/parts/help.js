// The keys, by ?.

import { html, signal, useEffect, useLayoutEffect, useRef } from "../lib/html.js";
import { listed, listen } from "../lib/keys.js";

const open = signal(false);

export function Help() {
  useEffect(() => listen("?", "show the keys", () => (open.value = true)), []);
  return open.value && html`<${Keys} />`;
}

function Keys() {
  const element = useRef(/** @type {any} */ (null));
  useLayoutEffect(() => element.current.showModal(), []);
  const close = () => (open.value = false);
  return html`<dialog ref=${element} aria-labelledby="keys" onClose=${close}>
    <div class="text"><h2 id="keys">Keys</h2>
      <table><tbody>${listed().map(([key, what]) => html`<tr key=${key}><td><kbd>${key}</kbd></td><td>${what}</td></tr>`)}</tbody></table>
      <p class="do"><button onClick=${() => element.current.close()}>Close</button></p></div></dialog>`;
}
