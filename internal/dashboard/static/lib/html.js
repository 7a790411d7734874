// The view library, in one place: htm's templates make Preact's elements, and signals redraw them.

import { h, render, Fragment } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export { render, Fragment };
export { useEffect, useLayoutEffect, useRef, useState, useMemo, useCallback } from "../vendor/hooks.js";
export { signal, computed, effect, batch, untracked, useSignal, useComputed, useSignalEffect } from "../vendor/signals.js";
