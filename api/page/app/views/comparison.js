/** Compare two versions on the same inspections. */

import { html } from "../html.js";

export function Comparison() {
  return html`<p></p>`;
}
