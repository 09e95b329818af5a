/** How far something is, by bar and in words. */

import { duration, integer, percent } from "../format.js";
import { html } from "../html.js";
import { t } from "../strings.js";

/**
 * @param {number | null} total null while it is not known.
 * @param {number | null} rate a second.
 * @param {number | null} secondsLeft
 */
export function Progress({ done, total, rate = null, secondsLeft = null }) {
  const parts = [t("progress.of", { done: integer(done), total: total === null ? "?" : integer(total) })];
  if (total) parts.push(percent(done / total));
  if (rate) parts.push(t("progress.rate", { rate: integer(rate) }));
  if (secondsLeft !== null) parts.push(t("progress.left", { time: duration(secondsLeft * 1000) }));
  const words = parts.join(" · ");
  return html`<div class="stack tight">
    <progress value=${total ? done / total : undefined} max="1" aria-label=${words}></progress>
    <span class="soft small number" aria-hidden="true">${words}</span></div>`;
}
