/** One inspection of a gallery: thumbnail, verdict, score and name. */

import { html } from "../html.js";
import { href } from "../router.js";
import { t } from "../strings.js";
import { Time } from "./time.js";
import { Score, Verdict, outcome } from "./verdict.js";

/** What people call an inspection: its part, else its file, else its id. */
export const nameOf = (inspection) => inspection.part_id ?? inspection.external_id ?? inspection.id;

export const thumbnailOf = (id) => `/v1/inspections/${id}/thumbnail`;

/**
 * @param {object} query the filter, kept in the link so that the next and the previous inspection follow it.
 * @param {(event: Event) => void} onSelect selects the inspection, or not any more.
 */
export function InspectionCard({ inspection, query, selected, onSelect }) {
  const name = nameOf(inspection);
  const verdict = outcome(inspection);
  const link = href(`/inspections/${inspection.id}`, query);
  const isOverruled = verdict !== "review" && inspection.reviews.length > 0 && inspection.verdict !== verdict;
  const { anomaly_score: score, threshold, error } = inspection;
  return html`<article class=${`card ${selected ? "selected" : ""}`}>
    <a class="picture" href=${link}>
      <img src=${thumbnailOf(inspection.id)} alt=${t("card.image", { name })} decoding="async" width="256" height="256" />
    </a>
    <label class="select">
      <input type="checkbox" checked=${selected} onClick=${onSelect} />
      <span class="visually-hidden">${t("card.select", { name })}</span>
    </label>
    <div class="text">
      <span class="row"><${Verdict} value=${verdict} />${isOverruled && html`<span class="soft">${t("card.overruled")}</span>`}</span>
      ${score !== null && html`<${Score} score=${score} threshold=${threshold} verdict=${verdict} />`}
      ${error && html`<span class="soft name">${error.detail ?? error.code}</span>`}
      <a class="name" href=${link} title=${name}>${name}</a>
      <span class="soft name">${[inspection.lot_id, inspection.line_id, inspection.station_id].filter(Boolean).join(" · ")}</span>
      <span class="soft"><${Time} at=${inspection.created_at} /></span>
    </div>
  </article>`;
}
