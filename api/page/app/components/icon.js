/** Icons of the sprite in `vendor/icons.svg`. They repeat what words say, so they are hidden from screen readers. */

import { html } from "../html.js";

export function Icon({ name }) {
  return html`<svg class="icon" aria-hidden="true"><use href=${`/static/vendor/icons.svg#${name}`} /></svg>`;
}
