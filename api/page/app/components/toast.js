/** Short messages at the lower edge, with an action such as undo. */

import { useEffect, useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";

const SHOWN = "linewatch:toast";
const SECONDS = 8;

/** Show a message for a few seconds. `action` is `{label, run}`. */
export function showToast(text, action = null) {
  dispatchEvent(new CustomEvent(SHOWN, { detail: { text, action } }));
}

export function Toasts() {
  const [toast, setToast] = useState(null);
  useEffect(() => {
    const show = (event) => setToast(event.detail);
    addEventListener(SHOWN, show);
    return () => removeEventListener(SHOWN, show);
  }, []);
  useEffect(() => {
    if (!toast) return undefined;
    const timer = setTimeout(() => setToast(null), SECONDS * 1000);
    return () => clearTimeout(timer);
  }, [toast]);
  const act = () => {
    toast.action.run();
    setToast(null);
  };
  return html`<div role="status" aria-live="polite">
    ${toast && html`<div class="toast">
      <span>${toast.text}</span>
      ${toast.action && html`<button onClick=${act}>${toast.action.label}</button>`}
    </div>`}
  </div>`;
}
