/** The challenger of a recipe: a version that scores a share of the live images in the shadow of the active one. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Confirm } from "../components/confirm.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { ProblemLine } from "../components/problem-line.js";
import { recipePath } from "../components/recipe-needed.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { exactPercent, integer } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t } from "../strings.js";

const COUNTS = ["completed", "ok_to_ng", "ng_to_ok", "failed", "skipped"];
const PROPOSED_PERCENT = 10;

/** @param {{model_version: number, share: number, run_id: string}} challenger as its recipe names it. */
export function ChallengerPanel({ recipe, challenger, may, onEnded }) {
  const run = useResource(`/v1/rescore-runs/${challenger.run_id}`, { every: 5_000 });
  const [asking, setAsking] = useState(false);
  const end = async () => {
    await call(`${recipePath(recipe)}/challenger`, { method: "DELETE" });
    showToast(t("challenger.ended", { version: challenger.model_version }));
    onEnded();
  };
  const report = `/v1/rescore-runs/${challenger.run_id}/report?format=html`;
  return html`<section class="panel" aria-label=${t("challenger.title")}>
    <header class="row"><h2>${t("challenger.title")}</h2>
      <span>${t("challenger.text", { version: challenger.model_version, share: exactPercent(challenger.share) })}</span>
      <span class="push row">
        <a class="button" href=${report} target="_blank" rel="noopener">${t("rescoring.report")}</a>
        <a class="button" href=${href("/rescoring", { recipe })}>${t("challenger.judge")}</a>
        ${may && html`<button onClick=${() => setAsking(true)}><${Icon} name="x" />${t("challenger.end")}</button>`}
      </span>
    </header>
    <${Resource} of=${run}>${({ counts, created_by: by, created_at: at }) => html`
      <dl class="figures counts">${COUNTS.map((name) => html`<div class="figure">
        <dt>${t(`rescoring.${name}`)}</dt><dd>${integer(counts[name])}</dd></div>`)}</dl>
      <p class="soft small">${t("rescoring.started.by")} ${by}, <${Time} at=${at} /></p>`}<//>
    ${asking && html`<${Confirm} title=${t("challenger.end.title")} yes=${t("challenger.end")} onYes=${end}
      onClose=${() => setAsking(false)}><p>${t("challenger.end.text")}</p><//>`}
  </section>`;
}

/** Ask for the share of the live images, and let the version challenge the active one. */
export function StartChallenger({ recipe, version, onClose, onStarted }) {
  const [problem, setProblem] = useState(null);
  const start = async (event) => {
    event.preventDefault();
    const share = Number(new FormData(event.target).get("share")) / 100;
    try {
      await call(`${recipePath(recipe)}/challenger`, { method: "PUT", json: { model_version: version, share } });
      onClose();
      onStarted();
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<${Dialog} title=${t("challenger.start.title", { version })} onClose=${onClose}>
    <form class="stack" onSubmit=${start}>
      <p>${t("challenger.start.text")}</p>
      <label>${t("challenger.share")}
        <input name="share" type="number" required min="0.1" max="100" step="any" size="6"
          defaultValue=${PROPOSED_PERCENT} /></label>
      <${ProblemLine} problem=${problem} />
      <div class="row">
        <button class="primary">${t("challenger.start")}</button>
        <button type="button" onClick=${onClose}>${t("action.back")}</button>
      </div>
    </form>
  <//>`;
}
