/** What can be done with the selected inspections of the gallery: review them, export them, score them again. */

import { useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { addReview } from "../reviewing.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";
import { StartRun } from "./start-run.js";
import { Dialog } from "../components/dialog.js";
import { ReviewForm } from "../components/review-form.js";
import { showToast } from "../components/toast.js";

/** @param {(changed: object[]) => void} onChanged called with the inspections as they are after a review. */
export function SelectionBar({ selected, onClear, onDeselect, onChanged }) {
  const [asking, setAsking] = useState(null);
  const mayReview = useMay("submit");
  const mayRescore = useMay("admin");
  const review = async (given) => {
    for (const { id } of selected) {
      onChanged([await addReview(id, given)]);
      onDeselect(id); // after a refusal, only the others are reviewed again
    }
    showToast(t("gallery.reviewed", { count: selected.length, verdict: tCode("verdict", given.verdict) }));
    setAsking(null);
    onClear();
  };
  const recipes = new Set(selected.map(({ recipe }) => recipe));
  const where = { ids: selected.map(({ id }) => id) };
  const close = () => setAsking(null);
  return html`<div class="selection row" role="region" aria-label=${t("gallery.selection")}>
    <strong>${t("gallery.selected", { count: selected.length })}</strong>
    ${mayReview && html`<button onClick=${() => setAsking("review")}>${t("gallery.review")}</button>`}
    <button onClick=${() => exportJson(selected)}>${t("gallery.export", { format: "JSON" })}</button>
    ${mayRescore && recipes.size === 1 && html`
      <button onClick=${() => setAsking("rescore")}>${t("gallery.rescore")}</button>`}
    <button class="plain push" onClick=${onClear}>${t("gallery.clear")}</button>
    ${asking === "review" && html`
      <${Dialog} title=${t("gallery.review")} onClose=${close}><${ReviewForm} onReview=${review} /><//>`}
    ${asking === "rescore" && html`
      <${StartRun} recipe=${[...recipes][0]} where=${where} onClose=${close} onStarted=${onClear} />`}
  </div>`;
}

/** Save the selected inspections as a file, as the API gives them. */
function exportJson(inspections) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(inspections, null, 1)], { type: "application/json" }));
  link.download = "inspections.json";
  link.click();
  URL.revokeObjectURL(link.href);
}
