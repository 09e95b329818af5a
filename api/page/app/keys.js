/** Keys of the keyboard: single letters and arrows, never while a person types, and never for a key that is held. */

import { useLayoutEffect, useRef } from "../vendor/hooks.mjs";

/** Keys that a control uses itself. */
const USED = {
  "input[type=range], [role=slider]": ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"],
  "button, a, summary, input": [" "],
};
const TYPING = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]";

/** Call a function for each key, by `KeyboardEvent.key`, for example `{ j: next, ArrowRight: next }`. */
export function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useLayoutEffect(() => {
    const act = (event) => {
      const isTyping = event.target.matches?.(TYPING) || document.querySelector("dialog[open]");
      const isUsed = Object.entries(USED).some(([which, keys]) => event.target.matches?.(which) && keys.includes(event.key));
      const isModified = event.ctrlKey || event.metaKey || event.altKey;
      if (isTyping || isUsed || isModified || event.repeat || !(event.key in latest.current)) return;
      event.preventDefault();
      latest.current[event.key]();
    };
    addEventListener("keydown", act);
    return () => removeEventListener("keydown", act);
  }, []);
}
