/** A moment in the browser's zone, with UTC on hover. */

import { clock, dateTime, utc } from "../format.js";
import { html } from "../html.js";

export function Time({ at, only = null }) {
  if (!at) return html`<span class="soft">–</span>`;
  return html`<time datetime=${at} title=${utc(at)}>${only === "clock" ? clock(at) : dateTime(at)}</time>`;
}
