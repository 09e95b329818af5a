/** A place to drop a folder of images, with a button to choose it instead. */

import { useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { t } from "../strings.js";
import { chosenImages, droppedImages } from "../views/training-images.js";
import { Icon } from "./icon.js";

/** @param {(images: {file: File, path: string, label: string}[]) => void} onImages never called with none. */
export function ImageFolder({ text, onImages, children }) {
  const [over, setOver] = useState(false);
  const [problem, setProblem] = useState(null);
  const take = (images) => {
    setProblem(images.length === 0 ? t("train.noImages") : null);
    if (images.length > 0) onImages(images);
  };
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    try {
      take(await droppedImages(event.dataTransfer));
    } catch (error) {
      setProblem(t("train.unreadable", { reason: error.message }));
    }
  };
  const choose = (event) => {
    take(chosenImages(event.target.files));
    event.target.value = ""; // so that the same folder can be chosen again
  };
  const dragOver = (event) => {
    event.preventDefault();
    setOver(true);
  };
  return html`<div class=${`drop ${over ? "over" : ""}`} onDragOver=${dragOver} onDragLeave=${() => setOver(false)}
    onDrop=${drop}>
    <${Icon} name="upload" /><span>${text}</span>
    <label class="button">${t("train.folder")}
      <input class="visually-hidden" type="file" multiple webkitdirectory onChange=${choose} /></label>
    ${children}
    ${problem && html`<span role="alert" class="light ng"><${Icon} name="triangle-alert" />${problem}</span>`}
  </div>`;
}
