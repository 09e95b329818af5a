/** A place to drop images or folders of them, with a button to choose some instead. */

import { useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { chosenImages, droppedImages } from "../image-files.js";
import { t } from "../strings.js";
import { Icon } from "./icon.js";

/**
 * @param {boolean} folder whether a folder is chosen, not single images. Both can be dropped.
 * @param {(images: {file: File, path: string}[]) => void} onImages never called with none.
 */
export function DropZone({ text, folder = false, onImages, children }) {
  const [over, setOver] = useState(false);
  const [problem, setProblem] = useState(null);
  const take = (images) => {
    setProblem(images.length === 0 ? t("drop.noImages") : null);
    if (images.length > 0) onImages(images);
  };
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    try {
      take(await droppedImages(event.dataTransfer));
    } catch (error) {
      setProblem(t("drop.unreadable", { reason: error.message }));
    }
  };
  const choose = (event) => {
    take(chosenImages(event.target.files));
    event.target.value = ""; // so that the same files can be chosen again
  };
  const dragOver = (event) => {
    event.preventDefault();
    setOver(true);
  };
  const look = `drop ${folder ? "" : "slim"} ${over ? "over" : ""}`;
  return html`<div class=${look} onDragOver=${dragOver} onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <${Icon} name="upload" /><span>${text}</span>
    <label class="button">
      ${folder ? t("drop.folder") : t("drop.images")}
      <input class="visually-hidden" type="file" multiple webkitdirectory=${folder} accept="image/*" onChange=${choose} />
    </label>
    ${children}
    ${problem && html`<span role="alert" class="light ng"><${Icon} name="triangle-alert" />${problem}</span>`}
  </div>`;
}
