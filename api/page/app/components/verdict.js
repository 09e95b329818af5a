/** A verdict or a status as colour, word and shape, and a score against its threshold. */

import { apart, ratio } from "../format.js";
import { html } from "../html.js";
import { t, tCode } from "../strings.js";
import { Icon } from "./icon.js";

const SHAPES = { ok: "check", ng: "x", review: "circle-help", failed: "triangle-alert" };

/** The verdict that counts for an inspection, or its status if it has none. */
export const outcome = (inspection) => inspection.effective_verdict ?? inspection.status;

export function Verdict({ value }) {
  return html`<span class=${`verdict ${value}`}>
    ${SHAPES[value] && html`<${Icon} name=${SHAPES[value]} />`}${tCode("verdict", value)}
  </span>`;
}

/** A bar whose middle is the threshold. */
export function Score({ score, threshold, verdict }) {
  const width = threshold > 0 ? Math.min(100, (50 * score) / threshold) : 0;
  const [shown, limit] = apart(score, threshold);
  const label = t("score.label", { score: shown, threshold: limit });
  return html`<div class="score" role="img" aria-label=${label} title=${label}>
    <div class="track">
      <div class=${`value ${verdict}`} style=${{ width: `${width}%` }}></div><div class="threshold"></div>
    </div>
    <span class="soft small number" aria-hidden="true">${shown} · ${ratio(score, threshold)}</span>
  </div>`;
}
