/** Webhook endpoints, with the deliveries that failed: why, and a way to send them again. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { duration, integer } from "../format.js";
import { html } from "../html.js";
import { href } from "../router.js";
import { t, tCode } from "../strings.js";
import { Table } from "./system-table.js";

const SHOWN = 20;
const LOOKS = { enabled: "ok", disabled: "ng" };

export function WebhookEndpoints({ endpoints, isAdmin, onChanged }) {
  const [open, setOpen] = useState({ id: null, state: null });
  const count = (endpoint, state) => {
    const isOpen = open.id === endpoint.id && open.state === state;
    if (endpoint[state] === 0 && !isOpen) return "0";
    return html`<button aria-expanded=${isOpen} aria-label=${`${t(`system.column.${state}`)}: ${endpoint[state]}`}
      onClick=${() => setOpen(isOpen ? { id: null, state: null } : { id: endpoint.id, state })}>
      ${integer(endpoint[state])}</button>`;
  };
  const rows = endpoints.map((each) => ({
    key: each.id,
    cells: [
      each.url,
      html`<span class=${`verdict ${LOOKS[each.state] ?? ""}`}>${tCode("endpointState", each.state)}</span>${" "}
        ${each.disabled_because && html`<span class="soft">${each.disabled_because}</span>`}`,
      count(each, "pending"),
      count(each, "exhausted"),
      html`<${Time} at=${each.failing_since} />`,
    ],
    more: open.id === each.id && html`<${Deliveries} key=${open.state} endpoint=${each} state=${open.state}
      isAdmin=${isAdmin} onChanged=${onChanged} />`,
  }));
  return html`<${Table} title="system.endpoints" empty="system.endpoints.none"
    head=${["endpoint", "state", "pending", "exhausted", "failing"]} rows=${rows} />`;
}

/** The newest deliveries of an endpoint in a state, each with its last try. */
function Deliveries({ endpoint, state, isAdmin, onChanged }) {
  const path = `/v1/webhook-endpoints/${endpoint.id}/deliveries`;
  const deliveries = useResource(path, { query: { state, limit: SHOWN }, every: 5_000 });
  const replay = async (items) => {
    try {
      for (const { id } of items) await call(`/v1/deliveries/${id}/replay`, { method: "POST" });
      showToast(t("system.replayed", { count: items.length }));
    } catch (problem) {
      showToast(problem.message);
    }
    deliveries.reload();
    onChanged();
  };
  const may = isAdmin && endpoint.state === "enabled";
  return html`<${Resource} of=${deliveries}>${({ items, next_cursor: next }) => (items.length === 0
    ? html`<p class="soft">${t("system.deliveries.none")}</p>`
    : html`<div class="stack">
        <ul class="stack">${items.map((each) => html`<${Delivery} key=${each.id} delivery=${each}
          onReplay=${may ? () => replay([each]) : null} />`)}</ul>
        ${next && html`<p class="soft">${t("system.deliveries.newest", { count: SHOWN })}</p>`}
        ${isAdmin && !may && html`<p class="soft">${t("system.deliveries.disabled")}</p>`}
        ${may && items.length > 1 && html`<div>
          <button onClick=${() => replay(items)}>${t("system.replayAll")}</button></div>`}
      </div>`)}<//>`;
}

function Delivery({ delivery, onReplay }) {
  const { event, subject_id: subject, tries, next_try_at: next } = delivery;
  const last = delivery.attempts.at(-1);
  return html`<li class="stack tight">
    <div class="row"><code>${event}</code>
      ${event.startsWith("inspection.")
        ? html`<a href=${href(`/inspections/${subject}`)}>${subject.slice(-12)}</a>`
        : html`<span>${subject}</span>`}
      <${Time} at=${delivery.occurred_at} />
      <span class="soft">${t("system.tries", { count: tries })}${next && html`, ${t("system.nextTry")}${" "}
        <${Time} at=${next} />`}</span>
      ${onReplay && html`<button class="push" onClick=${onReplay}>${t("system.replay")}</button>`}</div>
    ${last && html`<div class="row small"><strong class="light ng">${tCode("outcome", last.outcome)}
      ${last.status !== null && ` ${last.status}`}</strong>
      <span class="soft"><${Time} at=${last.at} />, ${duration(last.duration_ms)}</span>
      ${last.answer && html`<code class="anywhere">${last.answer}</code>`}</div>`}
  </li>`;
}
