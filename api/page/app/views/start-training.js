/** Start a training: drop a folder of good parts, or choose inspections that people or the machine found good. */

import { useRef, useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { Icon } from "../components/icon.js";
import { Progress } from "../components/progress.js";
import { integer } from "../format.js";
import { html } from "../html.js";
import { t } from "../strings.js";

const UPLOADED_AT_ONCE = 50;
const IMAGE = /\.(jpe?g|png|bmp|webp|tiff?)$/i;

export function StartTraining({ path, onStarted }) {
  const [files, setFiles] = useState([]); // {file, label}
  const [sent, setSent] = useState(null);
  const [problems, setProblems] = useState([]);
  const [over, setOver] = useState(false);
  const aborter = useRef(null);
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    setFiles(await readDropped(event.dataTransfer));
  };
  const start = async (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    setProblems([]);
    aborter.current = new AbortController();
    const { signal } = aborter.current;
    try {
      const run = await call(path, { method: "POST", json: readRequest(fields, files.length === 0), signal });
      for (let index = 0; index < files.length; index += UPLOADED_AT_ONCE) {
        setSent(index);
        const answer = await call(`${path}/${run.id}/images`, { method: "POST", body: formOf(files.slice(index, index + UPLOADED_AT_ONCE)), signal });
        setProblems((before) => [...before, ...answer.errors.map((error) => `${error.external_id}: ${error.detail}`)]);
      }
      await call(`${path}/${run.id}/start`, { method: "POST", signal });
      setFiles([]);
      onStarted();
    } catch (problem) {
      if (problem.name !== "AbortError") setProblems((before) => [...before, problem.message]);
    } finally {
      setSent(null);
    }
  };
  const good = files.filter(({ label }) => label === "good").length;
  return html`<form class="panel" onSubmit=${start}>
    <div class=${`drop ${over ? "over" : ""}`} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <${Icon} name="upload" /><span>${t("train.drop")}</span>
      <label class="button">${t("train.folder")}<input class="visually-hidden" type="file" multiple webkitdirectory onChange=${(event) => setFiles(labelled([...event.target.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }))))} /></label>
      ${files.length > 0 && html`<strong role="status">${t("train.files", { good: integer(good), test: integer(files.length - good) })}</strong>`}
    </div>
    <fieldset class="row end" disabled=${files.length > 0}><legend>${t("train.orInspections")}</legend>
      <label>${t("train.good")}<select name="good"><option value="reviewed">${t("train.good.reviewed")}</option><option value="effective">${t("train.good.effective")}</option></select></label>
      <label>${t("filter.since")}<input type="datetime-local" name="since" /></label><label>${t("filter.until")}<input type="datetime-local" name="until" /></label><label>${t("filter.lot_id")}<input name="lot_id" size="10" /></label>
    </fieldset>
    <details><summary>${t("train.options")}</summary><div class="row end">
      <label>${t("model.architecture")}<select name="architecture"><option value="">${t("train.auto")}</option>${["feature-gaussian", "memory-bank", "combined-mean", "combined-maximum", "feature-autoencoder", "conv-autoencoder"].map((name) => html`<option>${name}</option>`)}</select></label>
      <label>${t("train.budget")}<input type="number" name="budget" min="1" max="600" placeholder="10" size="6" /></label>
      <label>${t("train.maxMs")}<input type="number" name="max_ms" min="1" placeholder="40" size="6" /></label>
      <label>${t("train.rate")}<input type="number" name="rate" min="0.1" max="50" step="any" placeholder="5" size="6" /></label>
      <label>${t("train.pose")}<select name="pose">${["auto", "upright", "as-is"].map((pose) => html`<option value=${pose}>${t(`train.pose.${pose}`)}</option>`)}</select></label></div></details>
    ${sent !== null && html`<${Progress} done=${sent} total=${files.length} />`}
    ${problems.length > 0 && html`<ul role="alert" class="small">${problems.map((problem) => html`<li class="light ng">${problem}</li>`)}</ul>`}
    <div class="row"><button class="primary" disabled=${sent !== null}>${t("train.start")}</button>
      ${sent !== null && html`<button type="button" onClick=${() => aborter.current.abort()}>${t("action.cancel")}</button>`}
      ${files.length > 0 && sent === null && html`<button type="button" onClick=${() => setFiles([])}>${t("train.clear")}</button>`}</div>
  </form>`;
}

/** The request for a run, from the fields of the form. */
function readRequest(fields, fromInspections) {
  const number = (name, factor = 1) => (fields.get(name) ? Number(fields.get(name)) * factor : null);
  const options = {
    architecture: fields.get("architecture") || null,
    budget_seconds: number("budget", 60),
    max_ms: number("max_ms"),
    false_reject_rate: number("rate", 0.01),
    pose: fields.get("pose"),
  };
  if (!fromInspections) return { options };
  const moment = (name) => (fields.get(name) ? new Date(fields.get(name)).toISOString() : null);
  return { options, inspections: { good: fields.get("good"), since: moment("since"), until: moment("until"), lot_id: fields.get("lot_id") || null } };
}

function formOf(files) {
  const form = new FormData();
  const items = {};
  for (const { file, label, path } of files) {
    form.append("images", file, path);
    items[path] = { label };
  }
  form.append("items", JSON.stringify(items));
  return form;
}

/** Files with their labels, by the folders of the MVTec layout: `test/<type>` to judge with, all others good parts. */
function labelled(files) {
  return files
    .filter(({ path }) => IMAGE.test(path) && !/(^|\/)ground_truth\//.test(path))
    .map(({ file, path }) => {
      const type = /(^|\/)test\/([^/]+)\//.exec(path)?.[2];
      return { file, path, label: type ? `test/${type}` : "good" };
    });
}

/** The files of dropped folders and files, with their paths. */
async function readDropped(transfer) {
  const found = [];
  const visit = async (entry, path) => {
    if (entry.isFile) {
      found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (entries.length === 0) return;
      for (const each of entries) await visit(each, `${path}/${each.name}`);
    }
  };
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  for (const entry of entries) await visit(entry, entry.name);
  return labelled(found);
}
