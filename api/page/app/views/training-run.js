/** One training: its upload, its progress with the loss curve, and how it ended. */

import { useMemo, useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { Chart, Legend } from "../components/chart.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { Progress } from "../components/progress.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { dateTime, duration, integer, number } from "../format.js";
import { html } from "../html.js";
import { t, tCode } from "../strings.js";
import { OpenTraining } from "./open-training.js";
import { TrainingResult } from "./training-result.js";

const ACTIVE = ["open", "queued", "running"];
const LOOKS = { completed: "ok", failed: "ng" };

/** @param {object} upload of `useUpload`; it may be of another training. */
export function TrainingRun({ run, path, may, upload, activeVersion, onChanged }) {
  const [asking, setAsking] = useState(false);
  const { progress, result } = run;
  const isUploading = upload.state?.id === run.id;
  const cancel = async () => {
    setAsking(false);
    if (isUploading) upload.stop();
    try {
      await call(`${path}/${run.id}/cancel`, { method: "POST" });
    } catch (problem) {
      showToast(problem.message);
    }
    onChanged();
  };
  return html`<section class="panel training" aria-label=${t("train.of", { time: dateTime(run.created_at) })}>
    <header>
      <span class=${`verdict ${LOOKS[run.status] ?? ""}`}>${tCode("training", run.status)}</span>
      <h2><${Time} at=${run.created_at} /></h2>
      <span class="soft small">${inShort(run)}</span>
      ${may && ACTIVE.includes(run.status) && html`<button class="push" onClick=${() => setAsking(true)}>
        <${Icon} name="x" />${t("action.cancel")}</button>`}
    </header>
    <${Request} run=${run} />
    ${run.status === "open" && may && html`<${OpenTraining} run=${run} path=${path} upload=${upload}
      onChanged=${onChanged} />`}
    ${isUploading && html`<${Refused} images=${upload.state.refused} />`}
    ${run.status === "queued" && html`<p class="soft">${t("train.waits")}</p>`}
    ${run.status === "running" && html`<${Stage} progress=${progress} />`}
    ${progress.curve.length > 0 && html`<${Curve} curve=${progress.curve} />`}
    ${run.reason && html`<p class="light ng" role="alert"><${Icon} name="triangle-alert" />${run.reason}</p>`}
    ${result && html`<${TrainingResult} run=${run} path=${path} may=${may} activeVersion=${activeVersion}
      onChanged=${onChanged} />`}
    <${Notes} notes=${progress.notes} />
    ${asking && html`<${Dialog} title=${t("train.cancel.title")} onClose=${() => setAsking(false)}>
      <p>${t(run.status === "open" ? "train.cancel.open" : "train.cancel.text")}</p>
      <div class="row"><button class="primary" onClick=${cancel}>${t("train.cancel.yes")}</button>
        <button onClick=${() => setAsking(false)}>${t("action.back")}</button></div><//>`}
  </section>`;
}

/** The number of images of each label, the time it took, and how often it was started. */
function inShort(run) {
  const images = Object.entries(run.images).map(([label, count]) => `${integer(count)} ${tCode("label", label)}`);
  return [
    images.join(", "),
    run.elapsed_seconds !== null && duration(run.elapsed_seconds * 1000),
    run.attempt > 1 && t("train.resumed", { count: run.attempt }),
  ].filter(Boolean).join(" · ");
}

/** The options that were chosen and the inspections that it learns from, by their names in the API. */
function Request({ run }) {
  const chosen = Object.entries({ ...run.options, compare: run.compare });
  const source = Object.entries(run.inspections ?? {});
  const listed = (values) => values.map(([name, value]) => html`<span><code>${name}</code> ${String(value)}</span>`);
  return html`<details><summary>${t("train.request")}</summary><div class="stack small">
    <p class="row">${listed(chosen)}</p>
    ${source.length > 0 && html`<p class="row"><strong>${t("train.source.inspections")}</strong>${listed(source)}</p>`}
  </div></details>`;
}

function Refused({ images }) {
  if (images.length === 0) return null;
  return html`<div role="alert" class="stack tight"><strong class="light ng">
      <${Icon} name="triangle-alert" />${t("train.refused", { count: images.length })}</strong>
    <ul class="small scrolled" tabindex="0">${images.map(({ name, detail }) => html`<li>
      <code>${name}</code> ${detail}</li>`)}</ul></div>`;
}

function Stage({ progress }) {
  const { stage, done, total, seconds_left: left } = progress;
  return html`<div class="stack tight"><strong>${stage === null ? t("train.begins") : tCode("stage", stage)}</strong>
    ${total === null
      ? html`<progress aria-label=${t("train.begins")}></progress>`
      : html`<${Progress} done=${done} total=${total} secondsLeft=${left} />`}</div>`;
}

/** The loss by epoch: of the final training once it has begun, before that of the fold that is being trained. */
function Curve({ curve }) {
  const { fold } = curve.find((epoch) => epoch.fold === null) ?? curve.at(-1);
  const data = useMemo(() => {
    const epochs = curve.filter((epoch) => epoch.fold === fold);
    return ["number", "training_loss", "validation_loss"].map((name) => epochs.map((epoch) => epoch[name]));
  }, [curve, fold]);
  const series = [
    { label: t("train.trainingLoss"), colour: "--accent" },
    { label: t("train.validationLoss"), colour: "--review", kind: "dashes" },
  ];
  return html`<div class="stack tight">
    <div class="row small"><${Legend} series=${series} />
      <span class="soft">${fold === null ? t("train.final") : t("train.fold", { number: fold + 1 })}</span></div>
    <${Chart} label=${t("train.curve")} data=${data} series=${series} height=${150} format=${number}
      formatX=${(epoch) => (Number.isInteger(epoch) ? integer(epoch) : "")} /></div>`;
}

function Notes({ notes }) {
  if (notes.length === 0) return null;
  return html`<details><summary>${t("train.notes", { count: notes.length })}</summary>
    <ul class="stack small">${notes.map((note) => html`<li>${note}</li>`)}</ul></details>`;
}
