/** Start a training: from a folder of good parts, or from inspections that people or the machine found good. */

import { useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { DropZone } from "../components/drop-zone.js";
import { ProblemLine } from "../components/problem-line.js";
import { integer } from "../format.js";
import { html } from "../html.js";
import { t } from "../strings.js";
import { labelled } from "./training-images.js";

const SOURCES = ["folder", "inspections"];
const ARCHITECTURES = [
  "auto",
  "feature-gaussian",
  "memory-bank",
  "combined-mean",
  "combined-maximum",
  "feature-autoencoder",
  "conv-autoencoder",
];
const POSES = ["auto", "upright", "as-is"];

/** @param {(run: object, images: object[]) => void} onCreated called with the open training, to upload and start. */
export function StartTraining({ path, onCreated }) {
  const [source, setSource] = useState("folder");
  const [images, setImages] = useState([]);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const start = async (event) => {
    event.preventDefault();
    const request = readRequest(new FormData(event.target), source);
    setBusy(true);
    try {
      onCreated(await call(path, { method: "POST", json: request }), images);
      setImages([]);
      setProblem(null);
    } catch (refusal) {
      setProblem(refusal);
    }
    setBusy(false);
  };
  const choose = (name) => {
    setSource(name);
    setImages([]);
  };
  const lacksImages = source === "folder" && images.length === 0;
  return html`<form class="panel" onSubmit=${start}>
    <header><h2>${t("train.new")}</h2>
      <span class="row">${SOURCES.map((name) => html`<button type="button" aria-pressed=${name === source}
        onClick=${() => choose(name)}>${t(`train.source.${name}`)}</button>`)}</span></header>
    ${source === "folder"
      ? html`<${DropZone} folder text=${t("train.drop")} onImages=${(files) => setImages(labelled(files))}>
          <${Chosen} images=${images} />
        <//>`
      : html`<${FromInspections} />`}
    <${Options} />
    <${ProblemLine} problem=${problem} />
    <div class="row">
      <button class="primary" disabled=${busy || lacksImages}>${t("train.start")}</button>
      ${images.length > 0 && html`<button type="button" onClick=${() => setImages([])}>${t("train.clear")}</button>`}
    </div>
  </form>`;
}

function Chosen({ images }) {
  const good = images.filter(({ label }) => label === "good").length;
  const counts = { good: integer(good), test: integer(images.length - good) };
  return images.length > 0 && html`<strong role="status">${t("train.files", counts)}</strong>`;
}

function FromInspections() {
  return html`<fieldset class="stack"><legend>${t("train.which")}</legend>
    <div class="row end">
      <label>${t("train.good")}<select name="good">
        <option value="reviewed">${t("train.good.reviewed")}</option>
        <option value="effective">${t("train.good.effective")}</option></select></label>
      <label>${t("filter.since")}<input type="datetime-local" name="since" /></label>
      <label>${t("filter.until")}<input type="datetime-local" name="until" /></label>
      ${["lot_id", "line_id", "station_id"].map((name) => html`<label>${t(`filter.${name}`)}
        <input name=${name} size="10" maxlength="200" /></label>`)}
      <label>${t("train.limit")}<input type="number" name="limit" min="1" max="20000" placeholder="2000" /></label>
    </div>
    <label class="inline"><input type="checkbox" name="defects" defaultChecked />${t("train.defects")}</label>
    <p class="soft small">${t("train.good.text")}</p>
  </fieldset>`;
}

/** The options, with their names in the API. An empty one has its default, which is shown in it if it is fixed. */
function Options() {
  return html`<details><summary>${t("train.options")}</summary><div class="options">
    <label>${t("model.architecture")} <code>architecture</code><select name="architecture">
      <option value="">${t("train.default")}</option>
      ${ARCHITECTURES.map((name) => html`<option value=${name}>${name === "auto" ? t("train.auto") : name}</option>`)}
    </select></label>
    <label>${t("train.budget")} <code>budget_seconds</code>
      <input type="number" name="budget_seconds" min="1" max="604800" placeholder="600" /></label>
    <label>${t("train.maxMs")} <code>max_ms</code>
      <input type="number" name="max_ms" min="0.1" max="60000" step="any" placeholder="40" /></label>
    <label>${t("train.rate")} <code>false_reject_rate</code>
      <input type="number" name="false_reject_rate" min="0.1" max="99" step="any" placeholder="5" /></label>
    <label>${t("train.pose")} <code>pose</code><select name="pose">
      ${POSES.map((pose) => html`<option value=${pose}>${t(`train.pose.${pose}`)}</option>`)}</select></label>
    <label>${t("train.epochs")} <code>epochs</code>
      <input type="number" name="epochs" min="1" max="500" /></label>
    <label>${t("train.inputSize")} <code>input_size</code>
      <input type="number" name="input_size" min="8" max="4096" /></label>
    <label>${t("train.compare")} <code>compare</code>
      <input type="number" name="compare" min="0" max="5000" placeholder="500" /></label>
  </div></details>`;
}

/** The request for a training, from the fields of the form. */
function readRequest(fields, source) {
  const text = (name) => fields.get(name)?.trim() || null;
  const number = (name) => (text(name) === null ? null : Number(text(name)));
  const moment = (name) => (text(name) === null ? null : new Date(text(name)).toISOString());
  const rate = number("false_reject_rate");
  const request = {
    options: {
      architecture: text("architecture"),
      budget_seconds: number("budget_seconds"),
      max_ms: number("max_ms"),
      false_reject_rate: rate === null ? null : rate / 100,
      pose: text("pose"),
      epochs: number("epochs"),
      input_size: number("input_size"),
    },
    ...(text("compare") && { compare: number("compare") }),
  };
  if (source === "folder") return request;
  const inspections = {
    good: text("good"),
    defects: fields.has("defects"),
    since: moment("since"),
    until: moment("until"),
    lot_id: text("lot_id"),
    line_id: text("line_id"),
    station_id: text("station_id"),
    ...(text("limit") && { limit: number("limit") }),
  };
  return { ...request, inspections };
}
