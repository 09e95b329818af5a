/** Overview: each recipe at a glance. */

import { html } from "../html.js";
import { t } from "../strings.js";

export function Overview() {
  return html`<div class="view-head"><h1>${t("nav.overview")}</h1></div>`;
}
