/** The image of an inspection under its heatmap, which can be faded, and the scale of the heatmap. */

import { useState } from "../../vendor/hooks.mjs";
import { number } from "../format.js";
import { html } from "../html.js";
import { useKeys } from "../keys.js";
import { t } from "../strings.js";
import { nameOf } from "./inspection-card.js";
import { ZoomableImage } from "./zoomable-image.js";

const MARKS = [0.5, 1, 1.5, 2, 2.5, 3]; // times the threshold

export function InspectionImage({ inspection }) {
  const [opacity, setOpacity] = useState(100);
  useKeys({ h: () => setOpacity(opacity > 0 ? 0 : 100) });
  const base = `/v1/inspections/${inspection.id}`;
  const alt = t("card.image", { name: nameOf(inspection) });
  if (inspection.status !== "completed") return html`<${ZoomableImage} src=${`${base}/image`} alt=${alt} />`;
  return html`
    <${ZoomableImage} src=${`${base}/image`} over=${`${base}/heatmap`} opacity=${opacity / 100} alt=${alt} />
    <label>
      ${t("inspection.opacity")}
      <input type="range" min="0" max="100" value=${opacity} onInput=${(event) => setOpacity(Number(event.target.value))} />
    </label>
    <${HeatScale} threshold=${inspection.threshold} />`;
}

/** The scale of the heatmap in units of the threshold, so a colour means the same on every image. */
function HeatScale({ threshold }) {
  return html`<figure class="stack">
    <div class="heat-scale"><img src="/static/heat-scale.png" alt="" /></div>
    <div class="heat-marks">${MARKS.map((mark) => (mark === 1
      ? html`<span class="at-threshold">${t("inspection.threshold")}</span>`
      : html`<span>${number(mark)} ×</span>`))}</div>
    <figcaption class="soft small">${t("inspection.scale", { threshold: number(threshold) })}</figcaption>
  </figure>`;
}
