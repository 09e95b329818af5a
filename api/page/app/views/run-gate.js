/** The gate of a run: the rules that it must meet before its version becomes active, and the outcome of each. */

import { useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { ProblemLine } from "../components/problem-line.js";
import { showToast } from "../components/toast.js";
import { exactPercent, integer } from "../format.js";
import { html } from "../html.js";
import { t, tCode } from "../strings.js";

/** The rules about shares, and the percentage that is proposed for each; null proposes none. */
const SHARES = { max_new_rejects: 1, max_failures: 1, max_new_false_rejects: null, max_missed: null };
const NUMBERS = ["min_reviewed_ok", "min_reviewed_ng"];

/** @param {(run: object) => void} onActivated called with the run as it is after its activation. */
export function GateDialog({ run, onClose, onActivated }) {
  const [problem, setProblem] = useState(null);
  const activate = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      const json = { gate: readGate(new FormData(event.target)) };
      const answer = await call(`/v1/rescore-runs/${run.id}/activate`, { method: "POST", json });
      showToast(t("model.activated", { version: answer.model_version.version }));
      onClose();
      onActivated(answer.run);
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<${Dialog} title=${t("rescoring.activate.title")} onClose=${onClose}>
    <form class="stack" onSubmit=${activate}>
      <p>${t("rescoring.activate.text")}</p>
      <div class="rules">
        ${Object.entries(SHARES).map(([rule, proposed]) => html`<label>${t("gate.most", { rule: t(`gate.${rule}`) })}
          <input name=${rule} type="number" min="0" max="100" step="any" defaultValue=${proposed} /></label>`)}
        ${NUMBERS.map((rule) => html`<label>${t("gate.least", { rule: t(`gate.${rule}`) })}
          <input name=${rule} type="number" min="1" step="1" /></label>`)}
      </div>
      <label class="inline"><input type="checkbox" name="confident" value="yes" />${t("gate.confident")}</label>
      <${ProblemLine} problem=${problem} />
      ${problem?.members?.gate && html`<${GateOutcomes} outcomes=${problem.members.gate} />`}
      <div class="row">
        <button class="primary">${t("action.activate")}</button>
        <button type="button" onClick=${onClose}>${t("action.back")}</button>
      </div>
    </form>
  <//>`;
}

/** A rule whose field is empty is no part of the gate. */
function readGate(fields) {
  const gate = {};
  for (const rule of Object.keys(SHARES)) {
    // 0.7 / 100 has an error in its last digits, which people would see in the audit log.
    if (fields.get(rule)) gate[rule] = Number((Number(fields.get(rule)) / 100).toPrecision(12));
  }
  for (const rule of NUMBERS) if (fields.get(rule)) gate[rule] = Number(fields.get(rule));
  if (fields.get("confident")) gate.confident = true;
  return gate;
}

export function GateOutcomes({ outcomes }) {
  return html`<ul class="stack tight" aria-label=${t("rescoring.gate")}>
    ${outcomes.map((outcome) => html`<${Outcome} key=${outcome.rule} outcome=${outcome} />`)}</ul>`;
}

function Outcome({ outcome }) {
  const { rule, met, detail } = outcome;
  return html`<li class="stack tight">
    <span class=${`light ${met ? "ok" : "ng"}`}><${Icon} name=${met ? "check" : "x"} />
      ${t(met ? "gate.met" : "gate.notMet", { rule: tCode("gate", rule) })}</span>
    <span class="soft small number">${detail ?? describe(outcome)}</span>
  </li>`;
}

/** What was measured, what it is compared with, and from how many images. */
function describe({ rule, limit, measured, count, of, bound }) {
  if (NUMBERS.includes(rule)) return t("gate.number", { count: integer(measured), limit: integer(limit) });
  return t("gate.share", {
    measured: exactPercent(measured), limit: exactPercent(limit), bound: exactPercent(bound), count: integer(count),
    of: integer(of),
  });
}
