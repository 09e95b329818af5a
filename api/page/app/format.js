/** Numbers, durations and dates for people, by their locale. Dates are in the browser's zone. */

import { locale, t } from "./strings.js";

const dash = "–";
const integers = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const significant = new Intl.NumberFormat(locale, { maximumSignificantDigits: 4 });
const days = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const moments = new Intl.DateTimeFormat(locale, { dateStyle: "short", timeStyle: "medium" });
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
export const ratio = (score, threshold) => (given(score) && threshold > 0 ? `${number(Number((score / threshold).toFixed(2)))} ×` : dash);

/** Milliseconds as ms, s, min or h. */
export function duration(milliseconds) {
  if (!given(milliseconds)) return dash;
  const unit = (value, name, digits) =>
    new Intl.NumberFormat(locale, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits }).format(value);
  if (milliseconds < 1000) return unit(milliseconds, "millisecond", milliseconds < 10 ? 1 : 0);
  const seconds = milliseconds / 1000;
  if (seconds < 90) return unit(seconds, "second", seconds < 10 ? 1 : 0);
  if (seconds < 5400) return unit(seconds / 60, "minute", 0);
  return seconds < 172800 ? unit(seconds / 3600, "hour", 1) : unit(seconds / 86400, "day", 1);
}

export function bytes(count) {
  if (!given(count)) return dash;
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(count, 1)) / 3)));
  return new Intl.NumberFormat(locale, { style: "unit", unit: units[step], unitDisplay: "short", maximumFractionDigits: 1 }).format(
    count / 1000 ** step,
  );
}

export const day = (moment) => days.format(new Date(moment));
export const clock = (moment) => clocks.format(new Date(moment));
export const dateTime = (moment) => moments.format(new Date(moment));
export const utc = (moment) => t("time.utc", { time: new Date(moment).toISOString().replace("T", " ").slice(0, 19) });

/** Midnight of today in the browser's zone, as RFC 3339 in UTC. */
export function startOfToday() {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  return midnight.toISOString();
}
