/** The audit log: who changed what, and when, with filters in the address. */

import { useResource } from "../api.js";
import { FilterInput } from "../components/filter-input.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { localInput } from "../format.js";
import { html } from "../html.js";
import { changeQuery } from "../router.js";
import { t } from "../strings.js";

const TEXTS = ["actor", "action", "subject"];
const MOMENTS = ["since", "until"];
const AT_ONCE = 50;

export function AuditLog({ query }) {
  const { audit_cursor: cursor } = query;
  const filter = Object.fromEntries([...TEXTS, ...MOMENTS].map((name) => [name, query[name]]));
  const events = useResource("/v1/audit-events", { query: { ...filter, cursor, limit: AT_ONCE } });
  return html`<section class="stack" aria-label=${t("audit.title")}><h2>${t("audit.title")}</h2>
    <${Filters} query=${query} />
    <${Resource} of=${events}>${({ items, next_cursor: next }) => html`
      ${items.length === 0 ? html`<p class="soft">${t("audit.none")}</p>` : html`<${Events} events=${items} />`}
      <div class="row">
        ${cursor && html`<button onClick=${() => changeQuery({ audit_cursor: "" })}>${t("audit.newest")}</button>`}
        ${next && html`<button onClick=${() => changeQuery({ audit_cursor: next })}>${t("audit.older")}</button>`}
      </div>`}<//></section>`;
}

function Filters({ query }) {
  const change = (name, value) => changeQuery({ [name]: value, audit_cursor: "" });
  return html`<form class="row end" onSubmit=${(event) => event.preventDefault()}>
    ${TEXTS.map((name) => html`<label>${t(`audit.${name}`)}<${FilterInput} type="search" size="20"
      value=${query[name] ?? ""} onCommit=${(value) => change(name, value)} /></label>`)}
    ${MOMENTS.map((name) => html`<label>${t(`filter.${name}`)}<${FilterInput} type="datetime-local"
      value=${localInput(query[name])} onCommit=${(value) => change(name, utcTime(value))} /></label>`)}
  </form>`;
}

const utcTime = (local) => (local ? new Date(local).toISOString() : "");

function Events({ events }) {
  return html`<div class="panel flush" tabindex="0"><table>
    <thead><tr><th>${t("audit.at")}</th>${TEXTS.map((name) => html`<th>${t(`audit.${name}`)}</th>`)}
      <th>${t("audit.detail")}</th></tr></thead>
    <tbody>${events.map((each) => html`<tr key=${each.id}>
      <td><${Time} at=${each.at} /></td><td>${each.actor}</td><td>${each.action}</td><td>${each.subject}</td>
      <td class="soft small anywhere">${inWords(each.detail)}</td></tr>`)}</tbody></table></div>`;
}

const inWords = (detail) =>
  Object.entries(detail)
    .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
