/** System: queues, workers, store, feed consumers, webhooks, legal holds, API keys and the audit log. */

import { useResource } from "../api.js";
import { HealthLine } from "../components/health-line.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { bytes, duration, integer, number, percent } from "../format.js";
import { html } from "../html.js";
import { useMay } from "../session.js";
import { t, tCode } from "../strings.js";
import { AuditLog } from "./audit-log.js";
import { Keys } from "./keys.js";
import { LegalHolds } from "./legal-holds.js";
import { Table } from "./system-table.js";
import { WebhookEndpoints } from "./webhook-endpoints.js";

const LOOKS = { ready: "ok", unready: "review", lost: "ng" };

export function SystemView({ query }) {
  const system = useResource("/v1/system", { every: 5_000 });
  const isAdmin = useMay("admin");
  return html`
    <div class="view-head"><h1>${t("nav.system")}</h1><${HealthLine} /></div>
    <${Resource} of=${system}>${(data) => html`
      ${data.health.reasons.length > 1 && html`<ul class="panel">
        ${data.health.reasons.map((reason) => html`<li>${reason}</li>`)}</ul>`}
      <${Figures} system=${data} />
      <${Queues} queues=${data.queues} />
      <${Workers} workers=${data.workers} />
      <${WebhookEndpoints} endpoints=${data.webhook_endpoints} isAdmin=${isAdmin} onChanged=${system.reload} />
      <${Consumers} consumers=${data.consumers} />
    `}<//>
    <${LegalHolds} query=${query} />
    ${isAdmin && html`<${Keys} /><${AuditLog} query=${query} />`}
  `;
}

function Figures({ system }) {
  const { store } = system;
  const counted = store.counted_at && html`, <${Time} at=${store.counted_at} only="clock" />`;
  return html`<dl class="panel figures">
    <${Figure} name="version" value=${system.version} note=${t("system.schema", { version: system.schema_version })} />
    <${Figure} name="disk" value=${bytes(store.disk_free_bytes)}
      note=${t(store.disk_of === "scratch" ? "system.scratchOf" : "system.diskOf", { size: bytes(store.disk_bytes) })} />
    <${Figure} name="images" value=${integer(store.images)} note=${html`${bytes(store.image_bytes)}${counted}`} />
    <${Figure} name="database" value=${bytes(system.database_bytes)} />
    <${Figure} name="rescues" value=${integer(system.rescues)}
      note=${t("system.poison", { count: integer(system.poison) })} />
    <${Figure} name="dispatcher" value=${html`<${Time} at=${system.dispatcher_seen_at} only="clock" />`} />
  </dl>`;
}

function Figure({ name, value, note = null }) {
  return html`<div class="figure"><dt>${t(`system.${name}`)}</dt><dd>${value}</dd>
    ${note && html`<dd class="note">${note}</dd>`}</div>`;
}

function Queues({ queues }) {
  const head = ["queue", "waiting", "running", "oldest", "forModel", "messages"];
  return html`<${Table} title="system.queues" head=${head} rows=${queues.map((each) => ({
    key: each.name,
    cells: [
      html`${each.name} <span class="soft">${tCode("queue", each.name)}</span>`,
      integer(each.waiting),
      integer(each.running),
      each.oldest_age_s === null ? "–" : duration(each.oldest_age_s * 1000),
      integer(each.waiting_for_model),
      integer(each.messages),
    ],
  }))} />`;
}

function Workers({ workers }) {
  const head = ["worker", "kind", "state", "device", "models", "fill", "rate", "since", "heartbeat"];
  return html`<${Table} title="system.workers" empty="system.workers.none" head=${head} rows=${workers.map((each) => ({
    key: each.name,
    cells: [
      html`${each.name} <span class="soft">${each.version}</span>`,
      tCode("kind", each.kind),
      html`<span class=${`verdict ${LOOKS[each.state] ?? ""}`}>${tCode("workerState", each.state)}</span>`,
      each.device ?? "–",
      each.models.map(({ recipe, version }) => `${recipe} ${version}`).join(", ") || "–",
      percent(each.minibatch_fill),
      number(each.images_per_second),
      html`<${Time} at=${each.started_at} />`,
      t("system.ago", { time: duration(each.heartbeat_age_s * 1000) }),
    ],
  }))} />`;
}

function Consumers({ consumers }) {
  const head = ["consumer", "behind", "acknowledged"];
  return html`<${Table} title="system.consumers" empty="system.consumers.none" head=${head}
    rows=${consumers.map((each) => ({
      key: each.name,
      cells: [each.name, integer(each.behind), html`<${Time} at=${each.acknowledged_at} />`],
    }))} />`;
}
