/** Give a verdict with a name and a reason. The name is kept for the next review on this device. */

import { useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { t } from "../strings.js";
import { Icon } from "./icon.js";

const KEPT = "linewatch:reviewer";

export const rememberedReviewer = () => localStorage.getItem(KEPT) ?? "";
export const rememberReviewer = (name) => localStorage.setItem(KEPT, name);

/** @param {(verdict: string, reviewer: string, reason: string) => Promise<void>} onReview */
export function ReviewForm({ onReview }) {
  const [problem, setProblem] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    const fields = new FormData(form);
    rememberReviewer(fields.get("reviewer"));
    try {
      await onReview(event.submitter.value, fields.get("reviewer"), fields.get("reason"));
      form.elements.reason.value = "";
      setProblem(null);
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<form class="stack" onSubmit=${submit}>
    <div class="row end">
      <label>${t("review.name")}<input name="reviewer" required maxlength="200" size="14" autocomplete="name" value=${rememberedReviewer()} /></label>
      <label>${t("review.reason")}<input name="reason" required maxlength="2000" size="28" list="review-reasons" /></label>
    </div>
    <datalist id="review-reasons">${t("review.reasons").split("|").map((reason) => html`<option value=${reason}></option>`)}</datalist>
    <div class="row">
      <button value="ok"><${Icon} name="check" />${t("review.mark", { verdict: t("verdict.ok") })}</button>
      <button value="ng"><${Icon} name="x" />${t("review.mark", { verdict: t("verdict.ng") })}</button>
    </div>
    ${problem && html`<p role="alert" class="light ng">${problem.message}</p>`}
  </form>`;
}
