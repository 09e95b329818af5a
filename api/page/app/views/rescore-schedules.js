/** The schedules that create re-scoring runs: when, of what, and what happened the last time. */

import { useState } from "../../vendor/hooks.mjs";
import { call } from "../api.js";
import { Confirm } from "../components/confirm.js";
import { describeSource } from "../components/run-source.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t, tCode } from "../strings.js";

/** @param {object} schedules the resource of all schedules. */
export function Schedules({ schedules, recipe, may }) {
  const [removing, setRemoving] = useState(null);
  const remove = async () => {
    await call(`/v1/rescore-schedules/${removing.id}`, { method: "DELETE" });
    schedules.reload();
  };
  return html`<section class="stack" aria-label=${t("rescoring.schedules")}><h2>${t("rescoring.schedules")}</h2>
    <${Resource} of=${schedules}>${({ items }) => {
      const shown = items.filter((each) => !recipe || each.run.recipe === recipe);
      if (shown.length === 0) return html`<p class="soft">${t("rescoring.schedules.none")}</p>`;
      return html`<${Table} schedules=${shown} may=${may} onRemove=${setRemoving} />`;
    }}<//>
    ${removing && html`<${Confirm} title=${t("rescoring.remove.title", { name: removing.name })}
      yes=${t("action.remove")} onYes=${remove} onClose=${() => setRemoving(null)}>
      <p>${t("rescoring.remove.text")}</p><//>`}
  </section>`;
}

function Table({ schedules, may, onRemove }) {
  const columns = ["schedule", "run.what", "cron", "next", "last"];
  return html`<div class="panel flush" tabindex="0"><table>
    <thead><tr>${columns.map((name) => html`<th>${t(`rescoring.${name}`)}</th>`)}<th></th></tr></thead>
    <tbody>${schedules.map((each) => html`<tr key=${each.id}>
      <td>${each.name}</td>
      <td><${What} run=${each.run} /></td>
      <td><code class="cron">${each.cron}</code><br /><span class="soft small">${each.time_zone}</span></td>
      <td>${each.state === "enabled" ? html`<${Time} at=${each.next_at} />` : tCode("rescoring", each.state)}</td>
      <td><${Last} last=${each.last} /></td>
      <td class="number">${may && html`<button onClick=${() => onRemove(each)}>${t("action.remove")}</button>`}</td>
    </tr>`)}</tbody></table></div>`;
}

function What({ run }) {
  const version = run.model_version ? t("model.version", { version: run.model_version }) : t("rescoring.newestVersion");
  return html`<a href=${href("/rescoring", { recipe: run.recipe })}>${run.recipe}</a>, ${version}
    <br /><span class="soft small">${describeSource(run.source)}</span>
    ${run.window && html`<br /><span class="soft small">${t("rescoring.window")}: ${run.window}</span>`}`;
}

function Last({ last }) {
  if (!last) return html`<span class="soft">–</span>`;
  return html`<${Time} at=${last.at} />
    ${last.outcome !== "started" && html`<br /><span class="light review">${last.outcome}</span>`}`;
}
