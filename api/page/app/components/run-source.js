/** What a re-scoring run reads, in a few words. */

import { dateTime, integer, percent } from "../format.js";
import { t, tCode } from "../strings.js";

const GROUPS = { verdict: "verdict", effective_verdict: "verdict", status: "verdict", reviewed: "reviewed" };

/** @param {object} source of a run: `where`, `folder`, `manifest`, or `live` for a challenger. */
export function describeSource(source) {
  const [kind, value] = Object.entries(source)[0];
  if (kind === "where") return describeWhere(value);
  if (kind === "live") return t("rescoring.source.live", { share: percent(value.share) });
  return `${t(`rescoring.source.${kind}`)}: ${value}`;
}

/** Filters of stored inspections: selected ones by their number, not by their ids. */
export function describeWhere({ ids, ...filters }) {
  const parts = ids ? [t("rescoring.source.ids", { count: ids.length, number: integer(ids.length) })] : [];
  for (const [name, value] of Object.entries(filters)) {
    parts.push(`${tCode("filter", name)}: ${describeValue(name, value)}`);
  }
  return parts.join(", ") || t("rescoring.source.everything");
}

function describeValue(name, value) {
  if (name === "since" || name === "until") return dateTime(value);
  return name in GROUPS ? tCode(GROUPS[name], value) : value;
}
