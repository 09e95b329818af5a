/** System: queues, workers, store, feed consumers, webhooks, API keys and the audit log. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { HealthLine } from "../components/health-line.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { bytes, duration, integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";
import { AuditLog } from "./audit-log.js";
import { Keys } from "./keys.js";

const LOOKS = { ready: "ok", starting: "", stopping: "", unready: "review", lost: "ng" };

export function SystemView({ query }) {
  const system = useResource("/v1/system", { every: 5_000 });
  const isAdmin = useMay("admin");
  return html`
    <div class="view-head"><h1>${t("nav.system")}</h1><${HealthLine} /></div>
    <${Resource} of=${system}>${(data) => html`<${Parts} system=${data} isAdmin=${isAdmin} onChanged=${system.reload} />`}<//>
    ${isAdmin && html`<${Keys} /><${AuditLog} query=${query} />`}
  `;
}

function Parts({ system, isAdmin, onChanged }) {
  const { health, queues, workers, store, consumers, webhook_endpoints: endpoints } = system;
  return html`
    ${health.reasons.length > 0 && html`<ul class="panel">${health.reasons.map((reason) => html`<li>${reason}</li>`)}</ul>`}
    <dl class="panel figures">
      <div class="figure"><dt>${t("system.version")}</dt><dd class="small">${system.version}</dd><dd class="note">${t("system.schema", { version: system.schema_version })}</dd></div>
      <div class="figure"><dt>${t("system.disk")}</dt><dd>${bytes(store.disk_free_bytes)}</dd><dd class="note">${t("system.diskOf", { size: bytes(store.disk_bytes) })}</dd></div>
      <div class="figure"><dt>${t("system.images")}</dt><dd>${integer(store.images)}</dd><dd class="note">${bytes(store.image_bytes)}</dd></div>
      <div class="figure"><dt>${t("system.database")}</dt><dd>${bytes(system.database_bytes)}</dd></div>
      <div class="figure"><dt>${t("system.rescues")}</dt><dd>${integer(system.rescues)}</dd><dd class="note">${t("system.poison", { count: integer(system.poison) })}</dd></div>
      <div class="figure"><dt>${t("system.dispatcher")}</dt><dd class="small"><${Time} at=${system.dispatcher_seen_at} only="clock" /></dd></div>
    </dl>
    <${Table} title="system.queues" head=${["queue", "waiting", "running", "oldest", "forModel", "messages"]} rows=${queues.map((each) => [
      each.name, integer(each.waiting), integer(each.running), each.oldest_age_s === null ? "–" : duration(each.oldest_age_s * 1000), integer(each.waiting_for_model), integer(each.messages),
    ])} />
    <${Table} title="system.workers" head=${["worker", "kind", "state", "device", "models", "fill", "rate", "heartbeat"]} rows=${workers.map((each) => [
      each.name, tCode("kind", each.kind), html`<span class=${`verdict ${LOOKS[each.state]}`}>${tCode("workerState", each.state)}</span>`, each.device ?? "–",
      each.models.map(({ recipe, version }) => `${recipe} ${version}`).join(", ") || "–", percent(each.minibatch_fill), number(each.images_per_second), duration(each.heartbeat_age_s * 1000),
    ])} />
    <${Table} title="system.endpoints" empty="system.endpoints.none" head=${["endpoint", "state", "pending", "exhausted", "failing", ""]} rows=${endpoints.map((each) => [
      each.url, tCode("endpointState", each.state), integer(each.pending), integer(each.exhausted), html`<${Time} at=${each.failing_since} />`,
      html`<${Deliveries} endpoint=${each} isAdmin=${isAdmin} onChanged=${onChanged} />`,
    ])} />
    <${Table} title="system.consumers" empty="system.consumers.none" head=${["consumer", "behind", "acknowledged"]} rows=${consumers.map((each) => [
      each.name, integer(each.behind), html`<${Time} at=${each.acknowledged_at} />`,
    ])} />
  `;
}

function Table({ title, head, rows, empty = null }) {
  return html`<section class="stack"><h2>${t(title)}</h2>${rows.length === 0 && empty
    ? html`<p class="soft">${t(empty)}</p>`
    : html`<div class="panel flush" tabindex="0"><table><thead><tr>${head.map((name) => html`<th>${name && t(`system.column.${name}`)}</th>`)}</tr></thead><tbody>${rows.map((cells) => html`<tr>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table></div>`}</section>`;
}

/** The deliveries of an endpoint that failed for good, to send again. */
function Deliveries({ endpoint, isAdmin, onChanged }) {
  const [open, setOpen] = useState(false);
  const deliveries = useResource(open ? `/v1/webhook-endpoints/${endpoint.id}/deliveries` : null, { query: { state: "exhausted", limit: 20 } });
  if (endpoint.exhausted === 0) return null;
  const replay = async (id) => {
    await call(`/v1/deliveries/${id}/replay`, { method: "POST" });
    deliveries.reload();
    onChanged();
  };
  return html`<div class="stack"><button onClick=${() => setOpen(!open)} aria-expanded=${open}>${t("system.failures")}</button>
    <${Resource} of=${deliveries}>${({ items }) => html`<ul class="stack">${items.map((each) => html`<li class="row"><span>${each.event}</span><${Time} at=${each.occurred_at} />
      ${each.event.startsWith("inspection") && html`<a href=${href(`/inspections/${each.subject_id}`)}>${each.subject_id.slice(-12)}</a>`}${isAdmin && html`<button onClick=${() => replay(each.id)}>${t("system.replay")}</button>`}</li>`)}</ul>`}<//></div>`;
}
