/** What a detector can find: its statement, and the share of synthetic defects caught by size and contrast. */

import { integer, percent } from "../format.js";
import { html } from "../html.js";
import { t, tCode } from "../strings.js";

export function Detectability({ of }) {
  const kinds = [...new Set(of.cells.map((cell) => cell.kind))];
  return html`<details>
    <summary>${of.statement[0] ?? t("detectability.title")}</summary>
    <div class="stack">
      ${of.statement.slice(1).map((sentence) => html`<p>${sentence}</p>`)}
      ${of.reasons.map((reason) => html`<p class="light ng">${reason}</p>`)}
      ${of.advice.map((advice) => html`<p>${advice}</p>`)}
      <div class="panels">${kinds.map((kind) => html`<${Chart} kind=${kind} cells=${of.cells.filter((cell) => cell.kind === kind)} />`)}</div>
    </div>
  </details>`;
}

function Chart({ kind, cells }) {
  const sizes = [...new Set(cells.map((cell) => cell.size_px))].sort((one, other) => one - other);
  const contrasts = [...new Set(cells.map((cell) => cell.contrast_percent))].sort((one, other) => one - other);
  const at = (size, contrast) => cells.find((cell) => cell.size_px === size && cell.contrast_percent === contrast);
  return html`<table class="detectability"><caption>${tCode("defect", kind)}</caption>
    <thead><tr><th>${t("detectability.contrast")}</th>${sizes.map((size) => html`<th class="number">${integer(size)} px</th>`)}</tr></thead>
    <tbody>${contrasts.map((contrast) => html`<tr><th>${contrast === null ? "–" : percent(contrast / 100)}</th>
      ${sizes.map((size) => html`<${Cell} cell=${at(size, contrast)} />`)}</tr>`)}</tbody></table>`;
}

function Cell({ cell }) {
  if (!cell) return html`<td></td>`;
  const share = cell.caught / cell.count;
  const title = t("detectability.cell", { caught: cell.caught, count: cell.count, low: percent(cell.interval[0]), high: percent(cell.interval[1]) });
  return html`<td class="number" title=${title} style=${{ background: `color-mix(in srgb, var(--accent) ${Math.round(share * 55)}%, transparent)` }}>${percent(share)}</td>`;
}
