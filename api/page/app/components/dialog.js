/** A dialog that asks before something happens. Escape and a click on the background close it. */

import { useEffect, useRef } from "../../vendor/hooks.mjs";
import { html } from "../html.js";

export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  useEffect(() => {
    element.current.showModal();
  }, []);
  const onClick = (event) => event.target === element.current && onClose();
  return html`<dialog ref=${element} onClose=${onClose} onClick=${onClick} aria-label=${title}>
    <div class="stack"><h2>${title}</h2>${children}</div>
  </dialog>`;
}
