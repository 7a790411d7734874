// Text that rows and receivers have written, made safe to look at.
//
// Browsers show it as text, never as HTML. But control characters, ANSI sequences and the controls
// of writing direction can hide a part of it, or show it in another order, so they become escapes.

// What has no form of its own, but for: the joiners, which emoji and many scripts need, and the
// signs of Arabic, Syriac and Kaithi, which can be seen. Soft hyphens, fillers and selectors hide.
const hidden = /(?![\u200c\u200d\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u{110bd}\u{110cd}])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\u{e0100}-\u{e01ef}]/gu;
// Marks on marks grow over the lines around. No language piles up more than eight.
const piled = /(?<=\p{M}{8})\p{M}/gu;

/** @param {string} c one character @returns {string} \u001b, as JSON has it */
const escape = (c) => {
  let out = "";
  for (let i = 0; i < c.length; i++) out += `\\u${c.charCodeAt(i).toString(16).padStart(4, "0")}`;
  return out;
};

/** Common ones have short escapes. @type {Record<string, string>} */
const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/**
 * Text on one line, whose invisible characters are shown as escapes.
 *
 * @param {unknown} text
 * @returns {string}
 */
export const visible = (text) => String(text ?? "").replace(hidden, (c) => short[c] ?? escape(c)).replace(piled, escape);

/**
 * The same for text of several lines, such as a response or JSON: line feeds and tabs stay. In the
 * text of a JSON document it changes nothing of what the document says, since what it escapes is
 * inside of strings, and JSON has the same escapes.
 *
 * @param {unknown} text
 * @returns {string}
 */
export const visibleLines = (text) => String(text ?? "").replace(/\r\n/g, "\n").replace(hidden, (c) => (c === "\n" || c === "\t" ? c : (short[c] ?? escape(c)))).replace(piled, escape);
