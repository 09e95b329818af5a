/** A question before something happens. A refusal is shown below the question, which stays open. */

import { useState } from "../../vendor/hooks.mjs";
import { html } from "../html.js";
import { t } from "../strings.js";
import { Dialog } from "./dialog.js";
import { ProblemLine } from "./problem-line.js";

/**
 * @param {string} yes the word of the button that does it.
 * @param {() => Promise<void>} onYes does it; the dialog closes once it is done.
 */
export function Confirm({ title, yes, onYes, onClose, children }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const act = async () => {
    setBusy(true);
    try {
      await onYes();
      onClose();
    } catch (refusal) {
      setProblem(refusal);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    ${children}
    <${ProblemLine} problem=${problem} />
    <div class="row">
      <button class="primary" disabled=${busy} onClick=${act}>${yes}</button>
      <button onClick=${onClose}>${t("action.back")}</button>
    </div>
  <//>`;
}
