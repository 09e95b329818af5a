/** Numbers, durations and dates for people, by their locale. Dates are in the browser's zone. */

import { locale, t } from "./strings.js";

const dash = "–";
const integers = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const significant = new Intl.NumberFormat(locale, { maximumSignificantDigits: 4 });
const days = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const moments = new Intl.DateTimeFormat(locale, { dateStyle: "short", timeStyle: "medium" });
const times = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const clocks = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });

const given = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const integer = (value) => (given(value) ? integers.format(value) : dash);
export const number = (value) => (given(value) ? significant.format(value) : dash);

/** A share, 0 to 1, in percent; with decimals where it is small. */
export function percent(share) {
  if (!given(share)) return dash;
  const digits = share > 0 && share < 0.1 ? 1 : 0;
  return new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: digits }).format(share);
}

/** A share with three significant digits, to compare it with a limit. */
export function exactPercent(share) {
  if (!given(share)) return dash;
  return new Intl.NumberFormat(locale, { style: "percent", maximumSignificantDigits: 3 }).format(share);
}

/** A score as a multiple of its threshold: `1.35 ×`. */
export function ratio(score, threshold) {
  if (!given(score) || !(threshold > 0)) return dash;
  return `${number(Number((score / threshold).toFixed(2)))} ×`;
}

/** A number with its unit, one of those of `Intl.NumberFormat`. */
function withUnit(value, unit, digits) {
  const options = { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: digits };
  return new Intl.NumberFormat(locale, options).format(value);
}

/** Milliseconds as ms, s, min or h. */
export function duration(milliseconds) {
  if (!given(milliseconds)) return dash;
  if (milliseconds < 1000) return withUnit(milliseconds, "millisecond", milliseconds < 10 ? 1 : 0);
  const seconds = milliseconds / 1000;
  if (seconds < 90) return withUnit(seconds, "second", seconds < 10 ? 1 : 0);
  if (seconds < 5400) return withUnit(seconds / 60, "minute", 0);
  return seconds < 172800 ? withUnit(seconds / 3600, "hour", 1) : withUnit(seconds / 86400, "day", 1);
}

export function bytes(count) {
  if (!given(count)) return dash;
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(count, 1)) / 3)));
  return withUnit(count / 1000 ** step, units[step], 1);
}

export const day = (moment) => days.format(new Date(moment));
export const time = (moment) => times.format(new Date(moment));
export const clock = (moment) => clocks.format(new Date(moment));
export const dateTime = (moment) => moments.format(new Date(moment));
export const utc = (moment) => t("time.utc", { time: new Date(moment).toISOString().replace("T", " ").slice(0, 19) });

/** A moment as an input of type `datetime-local` takes it, in the browser's zone; empty if it is none. */
export function localInput(moment) {
  const date = new Date(moment ?? NaN);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** Midnight of today in the browser's zone, as RFC 3339 in UTC. */
export function startOfToday() {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  return midnight.toISOString();
}
