/** A dialog that asks before something happens. Escape and a click on the background close it. */

import { useLayoutEffect, useRef } from "../../vendor/hooks.mjs";
import { html } from "../html.js";

export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  const pressed = useRef(null);
  const isGone = useRef(false);
  useLayoutEffect(() => {
    const { current: dialog } = element;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      isGone.current = true;
      dialog.close(); // as long as it is open, nothing else can have the focus
      if (before?.isConnected) before.focus();
    };
  }, []);
  const onEnd = () => isGone.current || onClose();
  // A selection of text that ends outside is no click on the background.
  const onClick = (event) => event.target === element.current && pressed.current === element.current && onClose();
  const onPointerDown = (event) => {
    pressed.current = event.target;
  };
  return html`<dialog ref=${element} onClose=${onEnd} onPointerDown=${onPointerDown} onClick=${onClick}
    aria-label=${title}>
    <div class="stack"><h2>${title}</h2>${children}</div>
  </dialog>`;
}
