/** Legal holds: what keeps a lot or a part beyond the retention of its recipe, and setting and releasing one. */

import { useState } from "../../vendor/hooks.mjs";
import { call, useResource } from "../api.js";
import { html } from "../html.js";
import { useMay } from "../session.js";
import { t } from "../strings.js";
import { Dialog } from "./dialog.js";
import { ProblemLine } from "./problem-line.js";
import { Resource } from "./states.js";
import { Time } from "./time.js";
import { showToast } from "./toast.js";

const KINDS = ["lot_id", "part_id"];

const namedBy = (of) => KINDS.find((kind) => of[kind]);

/** A held lot or part, or one to hold, in words. */
export const subjectOf = (of) => t(`holds.${namedBy(of)}`, { id: of[namedBy(of)] });

/** The active holds on a lot or a part; nothing is read without both. */
export function useHolds({ lot_id, part_id }) {
  const path = lot_id || part_id ? "/v1/legal-holds" : null;
  return useResource(path, { query: { state: "active", lot_id, part_id } });
}

/** A mark for what is on hold. */
export function OnHold({ holds }) {
  if (!holds.data?.items.length) return null;
  return html`<span class="light review">${t("holds.onHold")}</span>`;
}

/**
 * The holds on a lot or a part, with who set them and why. Nothing without any, unless the person may set one.
 *
 * @param {{lot_id: ?string, part_id: ?string}} of an inspection, or a filter.
 * @param {object} holds those that `useHolds` has read of it.
 */
export function Holds({ of, holds }) {
  const may = useMay("admin");
  const [asking, setAsking] = useState(null); // {set: subject} or {release: hold}
  const close = () => setAsking(null);
  return html`<${Resource} of=${holds}>${({ items }) => {
    if (items.length === 0 && !may) return null;
    const free = KINDS.filter((kind) => of[kind] && !items.some((hold) => hold[kind] === of[kind]));
    return html`<section class="panel" aria-label=${t("holds.title")}>
      <header><h2>${t("holds.title")}</h2></header>
      ${items.length === 0 && html`<p class="soft">${t("holds.none.here")}</p>`}
      ${items.length > 0 && html`<ul class="stack">${items.map((hold) => html`<li class="row" key=${hold.id}>
        <strong class="anywhere">${subjectOf(hold)}</strong><span class="anywhere">${hold.reason}</span>
        <span class="soft small">${hold.actor}, <${Time} at=${hold.created_at} /></span>
        ${may && html`<button class="push" onClick=${() => setAsking({ release: hold })}>${t("holds.release")}</button>`}
      </li>`)}</ul>`}
      ${may && free.length > 0 && html`<div class="row">${free.map((kind) => html`
        <button onClick=${() => setAsking({ set: { [kind]: of[kind] } })}>
          ${t(`holds.keep.${kind}`)}</button>`)}</div>`}
      ${asking?.set && html`<${SetHold} on=${asking.set} onSet=${holds.reload} onClose=${close} />`}
      ${asking?.release && html`<${ReleaseHold} hold=${asking.release} onReleased=${holds.reload} onClose=${close} />`}
    </section>`;
  }}<//>`;
}

/** @param {?object} on the lot or the part to hold; without it, the person names it. */
export function SetHold({ on = null, onSet, onClose }) {
  const set = async ({ kind, name, reason }) => {
    const subject = on ?? { [kind]: name.trim() };
    await call("/v1/legal-holds", { method: "POST", json: { ...subject, reason } });
    showToast(t("holds.saved", { subject: subjectOf(subject) }));
    onSet();
  };
  const title = on ? t("holds.set.title", { subject: subjectOf(on) }) : t("holds.set");
  return html`<${ReasonDialog} title=${title} text=${t("holds.text")} yes=${t("holds.set")} onYes=${set} onClose=${onClose}>
    ${!on && html`<div class="row end">
      <label>${t("holds.kind")}<select name="kind">
        ${KINDS.map((kind) => html`<option value=${kind}>${t(`field.${kind}`)}</option>`)}</select></label>
      <label>${t("holds.name")}<input name="name" required maxlength="200" /></label>
    </div>`}
  <//>`;
}

export function ReleaseHold({ hold, onReleased, onClose }) {
  const subject = subjectOf(hold);
  const release = async ({ reason }) => {
    await call(`/v1/legal-holds/${hold.id}/release`, { method: "POST", json: { reason } });
    showToast(t("holds.released", { subject }));
    onReleased();
  };
  return html`<${ReasonDialog} title=${t("holds.release.title", { subject })} text=${t("holds.release.text")}
    yes=${t("holds.release")} onYes=${release} onClose=${onClose} />`;
}

/** A question that takes a reason, and the fields in `children`. A refusal is shown below them. */
function ReasonDialog({ title, text, yes, onYes, onClose, children = null }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await onYes(Object.fromEntries(new FormData(event.target)));
      onClose();
    } catch (refusal) {
      setProblem(refusal);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}><form class="stack" onSubmit=${submit}>
    <p>${text}</p>
    ${children}
    <label>${t("holds.reason")}<input name="reason" required maxlength="2000" /></label>
    <${ProblemLine} problem=${problem} />
    <div class="row"><button class="primary" disabled=${busy}>${yes}</button>
      <button type="button" onClick=${onClose}>${t("action.back")}</button></div>
  </form><//>`;
}
