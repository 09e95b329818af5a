/** The requests of the form of a re-scoring run: a run, or a schedule that creates runs. */

import { t } from "../strings.js";

/** The zone of the browser: that of a window or a schedule if a person names no other. */
export const LOCAL_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** How often a schedule creates runs: the days of the week of a cron expression. */
export const DAYS = { daily: "*", weekdays: "1-5", sundays: "0" };

const TEXTS = ["lot_id", "line_id", "station_id"];

/**
 * The run that a form asks for.
 *
 * @param {FormData} fields
 * @param {object} where filters that were chosen before; a filter of the form replaces them.
 */
export function readRun(fields, recipe, where) {
  const filters = { ...where };
  for (const name of TEXTS) if (fields.get(name)) filters[name] = fields.get(name);
  if (fields.get("since")) filters.since = new Date(fields.get("since")).toISOString();
  if (fields.get("max_age_hours")) filters.max_age_hours = Number(fields.get("max_age_hours"));
  const run = { recipe, model_version: readNumber(fields, "version"), source: { where: filters } };
  for (const name of ["threshold", "review_threshold"]) {
    if (fields.get(name)) run[name] = readNumber(fields, name);
  }
  if (fields.get("recompute")) run.recompute = true;
  return { ...run, ...readWindow(fields) };
}

/** The schedule that a form asks for: the run, its name, and when it is due. */
export function readSchedule(fields, recipe, where) {
  const run = readRun(fields, recipe, where);
  return { name: fields.get("name"), cron: readCron(fields), time_zone: readZone(fields), run };
}

const readZone = (fields) => fields.get("time_zone") || LOCAL_ZONE;
const readNumber = (fields, name) => (fields.get(name) ? Number(fields.get(name)) : null);

function readWindow(fields) {
  const [from, to] = [fields.get("window_from"), fields.get("window_to")];
  if (!from && !to) return {};
  if (!from || !to) throw new Error(t("rescoring.window.both"));
  return { window: `${from}-${to}`, time_zone: readZone(fields) };
}

function readCron(fields) {
  const days = DAYS[fields.get("often")];
  if (!days) return fields.get("cron");
  const [hour, minute] = fields.get("at").split(":").map(Number);
  return `${minute} ${hour} * * ${days}`;
}
