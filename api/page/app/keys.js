/** Keys of the keyboard: single letters and arrows, never while a person types. */

import { useLayoutEffect, useRef } from "../vendor/hooks.mjs";

const TYPING = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]";

/** Call a function for each key, by `KeyboardEvent.key`, for example `{ j: next, ArrowRight: next }`. */
export function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useLayoutEffect(() => {
    const act = (event) => {
      const isTyping = event.target.matches?.(TYPING) || document.querySelector("dialog[open]");
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !(event.key in latest.current)) return;
      event.preventDefault();
      latest.current[event.key]();
    };
    addEventListener("keydown", act);
    return () => removeEventListener("keydown", act);
  }, []);
}
