/** Keys of the keyboard: single letters and arrows, never while a person types. */

import { useEffect } from "../vendor/hooks.mjs";

const TYPING = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]";

/** Call a function for each key, by `KeyboardEvent.key`, for example `{ j: next, ArrowRight: next }`. */
export function useKeys(actions) {
  useEffect(() => {
    const act = (event) => {
      const typing = event.target.matches?.(TYPING) || document.querySelector("dialog[open]");
      if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in actions)) return;
      event.preventDefault();
      actions[event.key]();
    };
    addEventListener("keydown", act);
    return () => removeEventListener("keydown", act);
  });
}
