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
 * @param {(event: Event) => void} [onSelect] shows a box to select the inspection.
 */
export function InspectionCard({ inspection, query, selected = false, onSelect = null }) {
  const name = nameOf(inspection);
  const verdict = outcome(inspection);
  const overruled = inspection.reviews.length > 0 && inspection.verdict !== inspection.effective_verdict;
  return html`<article class=${`card ${selected ? "selected" : ""}`}>
    <a class="picture" href=${href(`/inspections/${inspection.id}`, query)}>
      <img src=${thumbnailOf(inspection.id)} alt=${t("card.image", { name })} loading="lazy" decoding="async" width="256" height="256" />
    </a>
    ${onSelect && html`<label class="select"><input type="checkbox" checked=${selected} onClick=${onSelect} /><span class="visually-hidden">${t("card.select", { name })}</span></label>`}
    <div class="text">
      <span class="row"><${Verdict} value=${verdict} />${overruled && html`<span class="soft">${t("card.overruled")}</span>`}</span>
      ${inspection.anomaly_score !== null && html`<${Score} score=${inspection.anomaly_score} threshold=${inspection.threshold} verdict=${verdict} />`}
      ${inspection.error && html`<span class="soft">${inspection.error.detail ?? inspection.error.code}</span>`}
      <a class="name" href=${href(`/inspections/${inspection.id}`, query)} title=${name}>${name}</a>
      <span class="soft name">${[inspection.lot_id, inspection.line_id, inspection.station_id].filter(Boolean).join(" · ")}</span>
      <span class="soft"><${Time} at=${inspection.created_at} /></span>
    </div>
  </article>`;
}
