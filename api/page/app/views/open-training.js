/** A training that nothing was started for: its upload goes on, was interrupted, or has to be chosen again. */

import { call } from "../api.js";
import { Icon } from "../components/icon.js";
import { DropZone } from "../components/drop-zone.js";
import { ProblemLine } from "../components/problem-line.js";
import { Progress } from "../components/progress.js";
import { showToast } from "../components/toast.js";
import { html } from "../html.js";
import { t } from "../strings.js";
import { labelled } from "./training-images.js";

const FEWEST = 10;

export function OpenTraining({ run, path, upload, onChanged }) {
  const state = upload.state?.id === run.id ? upload.state : null;
  if (state?.running) {
    return html`<div class="stack tight"><strong>${t("train.uploading")}</strong>
      <${Progress} done=${state.sent} total=${state.images.length} />
      <div class="row"><button onClick=${upload.stop}><${Icon} name="pause" />${t("action.pause")}</button></div>
    </div>`;
  }
  const start = async () => {
    try {
      await call(`${path}/${run.id}/start`, { method: "POST" });
    } catch (problem) {
      showToast(problem.message);
    }
    onChanged();
  };
  const left = state === null ? 0 : state.images.length - state.sent;
  const enough = run.inspections !== null || (run.images.good ?? 0) >= FEWEST;
  return html`<div class="stack">
    <${ProblemLine} problem=${state?.problem} />
    <p>${left > 0 ? t("train.interrupted", { count: left }) : t("train.open")}</p>
    <div class="row">
      ${left > 0 && html`<button class="primary" onClick=${upload.resume}>
        <${Icon} name="play" />${t("train.continue")}</button>`}
      ${enough && html`<button onClick=${start}>${t("train.startAsItIs")}</button>`}
    </div>
    ${left === 0 && html`<${DropZone} folder text=${t("train.dropAgain")}
      onImages=${(images) => upload.begin(run.id, labelled(images))} />`}
  </div>`;
}
