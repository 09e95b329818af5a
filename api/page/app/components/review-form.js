/** Give a verdict with a name and a reason. The name is kept for the next review on this device. */

import { useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { rememberReviewer, rememberedReviewer } from "../reviewing.js";
import { t } from "../strings.js";
import { Icon } from "./icon.js";
import { ProblemLine } from "./problem-line.js";

/** @param {(review: {verdict: string, reviewer: string, reason: string}) => Promise<void>} onReview */
export function ReviewForm({ onReview }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    const { reviewer, reason } = Object.fromEntries(new FormData(form));
    rememberReviewer(reviewer);
    setBusy(true);
    try {
      await onReview({ verdict: event.submitter.value, reviewer, reason });
      form.elements.reason.value = "";
      setProblem(null);
    } catch (refusal) {
      setProblem(refusal);
    }
    setBusy(false);
  };
  const reasons = t("review.reasons").split("|");
  return html`<form class="stack" onSubmit=${submit}>
    <div class="row end">
      <label>
        ${t("review.name")}
        <input name="reviewer" required maxlength="200" size="14" autocomplete="name"
          defaultValue=${rememberedReviewer()} />
      </label>
      <label>
        ${t("review.reason")}
        <input name="reason" required maxlength="2000" size="28" list="review-reasons" />
      </label>
    </div>
    <datalist id="review-reasons">${reasons.map((reason) => html`<option value=${reason}></option>`)}</datalist>
    <div class="row">
      <button value="ok" disabled=${busy}><${Icon} name="check" />${t("review.mark", { verdict: t("verdict.ok") })}</button>
      <button value="ng" disabled=${busy}><${Icon} name="x" />${t("review.mark", { verdict: t("verdict.ng") })}</button>
    </div>
    <${ProblemLine} problem=${problem} />
  </form>`;
}
