/** Why something was refused, in the words of the API, in one line of a form or a dialog. */

import { html } from "../html.js";
import { Icon } from "./icon.js";

export function ProblemLine({ problem }) {
  if (!problem) return null;
  return html`<p role="alert" class="light ng"><${Icon} name="triangle-alert" />${problem.message}</p>`;
}
