/** API keys: create one, which is shown once, and revoke. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { Dialog } from "../components/dialog.js";
import { Icon } from "../components/icon.js";
import { ProblemLine } from "../components/problem-line.js";
import { Resource } from "../components/states.js";
import { Time } from "../components/time.js";
import { showToast } from "../components/toast.js";
import { integer } from "../format.js";
import { html } from "../html.js";
import { t } from "../strings.js";

const SCOPES = ["submit", "read", "admin"];
const COLUMNS = ["name", "prefix", "scopes", "since", "used", "expires", "rate"];

export function Keys() {
  const keys = useResource("/v1/api-keys");
  const [asking, setAsking] = useState(null); // "create", or the key to revoke
  const [created, setCreated] = useState(null);
  const close = () => setAsking(null);
  const onCreated = (key) => {
    close();
    setCreated(key);
    keys.reload();
  };
  const revoke = async () => {
    close();
    try {
      await call(`/v1/api-keys/${asking.prefix}`, { method: "DELETE" });
    } catch (problem) {
      showToast(problem.message);
    }
    keys.reload();
  };
  return html`<section class="stack" aria-label=${t("keys.title")}>
    <div class="row"><h2>${t("keys.title")}</h2>
      <button onClick=${() => setAsking("create")}><${Icon} name="plus" />${t("keys.create")}</button></div>
    <${Resource} of=${keys}>${({ items }) => (items.length === 0
      ? html`<p class="soft">${t("keys.none")}</p>`
      : html`<${KeyTable} items=${items} onRevoke=${setAsking} />`)}<//>
    ${asking === "create" && html`<${NewKey} onCreated=${onCreated} onClose=${close} />`}
    ${asking?.prefix && html`<${Dialog} title=${t("keys.revoke.title", { name: asking.name })} onClose=${close}>
      <p>${t("keys.revoke.text")}</p>
      <div class="row"><button class="primary" onClick=${revoke}>${t("keys.revoke")}</button>
        <button onClick=${close}>${t("action.back")}</button></div><//>`}
    ${created && html`<${CreatedKey} created=${created} onClose=${() => setCreated(null)} />`}
  </section>`;
}

function KeyTable({ items, onRevoke }) {
  return html`<div class="panel flush" tabindex="0"><table>
    <thead><tr>${COLUMNS.map((name) => html`<th>${t(`keys.${name}`)}</th>`)}<td></td></tr></thead>
    <tbody>${items.map((key) => html`<tr key=${key.prefix} class=${key.revoked_at ? "retracted" : ""}>
      <td>${key.name}</td><td><code>${key.prefix}</code></td><td>${key.scopes.join(", ")}</td>
      <td><${Time} at=${key.created_at} /></td><td><${Time} at=${key.last_used_at} /></td>
      <td><${Time} at=${key.expires_at} /></td><td>${integer(key.requests_per_minute)}</td>
      <td class="plain-text">${key.revoked_at
        ? html`${t("keys.revoked")} <${Time} at=${key.revoked_at} />`
        : html`<button onClick=${() => onRevoke(key)}>${t("keys.revoke")}</button>`}</td>
    </tr>`)}</tbody></table></div>`;
}

function NewKey({ onCreated, onClose }) {
  const [problem, setProblem] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const expires = fields.get("expires_at");
    const json = {
      name: fields.get("name"),
      scopes: fields.getAll("scopes"),
      expires_at: expires ? new Date(expires).toISOString() : null,
      requests_per_minute: fields.get("rate") ? Number(fields.get("rate")) : null,
    };
    try {
      onCreated(await call("/v1/api-keys", { method: "POST", json }));
    } catch (refusal) {
      setProblem(refusal);
    }
  };
  return html`<${Dialog} title=${t("keys.create")} onClose=${onClose}><form class="stack" onSubmit=${create}>
    <label>${t("keys.name")}<input name="name" required maxlength="200" /></label>
    <fieldset class="row"><legend>${t("keys.scopes")}</legend>${SCOPES.map((scope) => html`<label class="inline">
      <input type="checkbox" name="scopes" value=${scope} defaultChecked=${scope === "read"} />${scope}</label>`)}
    </fieldset>
    <div class="row end"><label>${t("keys.expires")}<input type="datetime-local" name="expires_at" /></label>
      <label>${t("keys.rate")}<input type="number" name="rate" min="1" max="1000000" /></label></div>
    <${ProblemLine} problem=${problem} />
    <div class="row"><button class="primary">${t("keys.create")}</button>
      <button type="button" onClick=${onClose}>${t("action.back")}</button></div></form><//>`;
}

/** The text of a new key, which the API shows only once. */
function CreatedKey({ created, onClose }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(created.key);
      showToast(t("keys.copied"));
    } catch (error) {
      showToast(error.message); // only HTTPS and this machine may copy
    }
  };
  return html`<${Dialog} title=${t("keys.created", { name: created.name })} onClose=${onClose}>
    <p>${t("keys.once")}</p><p><code class="secret">${created.key}</code></p>
    <div class="row"><button class="primary" onClick=${copy}>${t("keys.copy")}</button>
      <button onClick=${onClose}>${t("action.close")}</button></div><//>`;
}
