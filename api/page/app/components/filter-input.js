/** An input of a filter: it keeps what is being typed when its view is drawn again, until the value is committed. */

import { useEffect, useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";

/** @param {(value: string) => void} onCommit called on Enter, or when the input is left. */
export function FilterInput({ value, onCommit, ...attributes }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  return html`<input ...${attributes} value=${text} onInput=${(event) => setText(event.target.value)}
    onChange=${(event) => onCommit(event.target.value.trim())} />`;
}
